"""Command line of DINO pre-training: `python -m segmodels.dino.pretrain --help`."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from segmodels.backbones.backbone import load_backbone
from segmodels.dino.photos import cached_photos
from segmodels.dino.salient_maps import cached_maps, cut_out_maps, salient_maps
from segmodels.dino.settings import PretrainSettings
from segmodels.dino.trainer import StepReport, Trainer
from segmodels.engine.distributed import Group, joined
from segmodels.engine.lifetime import end_with_parent

CHECKPOINT = "checkpoint.pt"
PROGRESS = "progress.jsonl"


def pretrain(
    settings: PretrainSettings,
    images: list[Path],
    out: Path,
    *,
    minutes: float = float("inf"),
    save_every: int = 200,
    report_every: int = 20,
    device: str = "cpu",
    start: str | None = None,
    objects: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Pre-train, or continue, until the schedule or the time is over.

    Under torchrun, all its processes call this alike; the first one writes and speaks.

    Args:
        settings: the run.
        images: folders and tar shards of photographs.
        out: folder of the checkpoint, the progress lines, the decoded photographs and their maps.
        minutes: stop (resumably) after this long.
        save_every, report_every: steps between checkpoints, and between progress lines; the
            schedule's last step has both.
        device: torch device; under torchrun "cuda" is a GPU of its own for each process.
        start: backbone whose weights the run begins with; None for random ones.
        objects: backbone that finds the photographs' objects; None for hand-made saliency alone.
        say: receives one line of text at each report.

    Returns:
        Path of the checkpoint; `segmodels.dino.export` turns it into weights.

    Raises:
        CheckpointMismatchError: `out` holds the checkpoint of a run with other settings.
        ValueError: `settings.batch_size` is no multiple of the processes, or there are too few
            photographs.
        RuntimeError: the weights of `start` are those of a transformer of another shape.
    """
    checkpoint = out / CHECKPOINT
    with joined(device) as group:
        trainer = _trainer(settings, images, out, start, objects, group, say)
        deadline = time.monotonic() + 60 * minutes
        since, first = time.monotonic(), trainer.step
        while trainer.step < settings.steps and group.agree(time.monotonic() < deadline):
            coming = trainer.step + 1
            due = coming % report_every == 0 or coming == settings.steps
            measure = group.leads and due
            report = trainer.train_step(measure)
            if measure:
                speed = (trainer.step - first) * settings.batch_size / (time.monotonic() - since)
                since, first = time.monotonic(), trainer.step
                _tell(report, settings, speed, out / PROGRESS, say)
            if trainer.step % save_every == 0:
                trainer.save(checkpoint)
        with group.leader_first():
            trainer.save(checkpoint)
    return checkpoint


def _trainer(
    settings: PretrainSettings,
    images: list[Path],
    out: Path,
    start: str | None,
    objects: str | None,
    group: Group,
    say: Callable[[str], None],
) -> Trainer:
    """Find the photographs and their objects, and the place where an earlier run stopped."""
    group.check_batch(settings.batch_size)
    with group.leader_first():
        photos = cached_photos(images, out, settings.photo_size)
        maps = _maps(photos, settings, objects, say)
        weights = None if start is None else load_backbone(start).state()
    trainer = Trainer(settings, photos, maps, group.device, weights, group)
    if (out / CHECKPOINT).is_file():
        trainer.resume(out / CHECKPOINT)
        if group.leads:
            say(f"continuing at step {trainer.step}")
    return trainer


def _maps(
    photos: np.memmap,
    settings: PretrainSettings,
    objects: str | None,
    say: Callable[[str], None],
) -> np.ndarray:
    """Maps of the photographs' objects, kept beside their file; not looked for without need."""
    cells = settings.saliency.cells
    if not settings.learns_objects:
        return np.zeros((len(photos), cells, cells), np.uint8)
    decoded = Path(str(photos.filename))
    if objects is None:
        path = decoded.with_name(f"{decoded.stem}-{cells}.maps")
        return cached_maps(len(photos), cells, path, lambda: salient_maps(photos, cells), say)
    backbone = load_backbone(objects)
    path = decoded.with_name(f"{decoded.stem}-{cells}-{backbone.digest[:16]}.maps")
    return cached_maps(len(photos), cells, path, lambda: cut_out_maps(photos, cells, backbone), say)


def _tell(
    report: StepReport,
    settings: PretrainSettings,
    speed: float,
    path: Path,
    say: Callable[[str], None],
) -> None:
    """Append one machine-readable line and say one readable line."""
    assert report.collapse is not None
    with path.open("a") as file:
        file.write(json.dumps({**asdict(report), "photos_per_second": speed}) + "\n")
    health = report.collapse
    numbers = {
        "cls": report.cls_loss,
        "patch": report.patch_loss,
        "saliency": report.saliency_loss,
        "shape": report.shape_loss,
        "sharpness": health.sharpness,
        "spread": health.spread,
        "rank": health.rank,
    }
    shown = " ".join(f"{name} {value:.3g}" for name, value in numbers.items() if value)
    say(
        f"step {report.step + 1}/{settings.steps} loss {report.loss:.3f} {shown} {speed:.0f} photos/s"
    )
    warning = health.warning()
    if warning and report.step > settings.warmup * settings.steps:
        say(f"warning: collapse at step {report.step + 1}: {warning}")


def main() -> None:
    """Parse the command line and run."""
    if torch.distributed.is_torchelastic_launched():
        end_with_parent()
    standard = PretrainSettings()
    parser = argparse.ArgumentParser(
        prog="python -m segmodels.dino.pretrain",
        description="Pre-train the backbone with DINO on unlabelled photographs; "
        "run again with the same arguments to continue.",
    )
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders, tar shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--steps", type=int, default=standard.steps, help="length of the schedule")
    parser.add_argument("--batch-size", type=int, default=standard.batch_size)
    parser.add_argument("--learning-rate", type=float, default=standard.learning_rate)
    parser.add_argument("--depth", type=int, default=standard.depth)
    parser.add_argument("--patch-weight", type=float, default=standard.patch_weight)
    parser.add_argument("--student-keep", type=float, default=standard.student_keep)
    parser.add_argument("--seed", type=int, default=standard.seed)
    parser.add_argument("--dino-weight", type=float, default=standard.dino_weight)
    parser.add_argument("--saliency-weight", type=float, default=standard.saliency.weight)
    parser.add_argument("--shape-weight", type=float, default=standard.shape.weight)
    parser.add_argument("--start", help="backbone to begin with: a name or a weights file")
    parser.add_argument(
        "--objects",
        help="backbone that finds the photographs' objects, for a further run; "
        "default: hand-made saliency alone",
    )
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    given = vars(parser.parse_args())
    if threads := given.pop("threads"):
        torch.set_num_threads(threads)
    names = ("images", "out", "minutes", "device", "start", "objects")
    run = {name: given.pop(name) for name in names}
    for loss in ("saliency", "shape"):
        given[loss] = replace(getattr(standard, loss), weight=given.pop(f"{loss}_weight"))
    pretrain(replace(standard, **given), say=lambda line: print(line, flush=True), **run)


if __name__ == "__main__":
    main()
