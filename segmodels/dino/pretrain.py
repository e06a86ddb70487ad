"""Command line of DINO pre-training: `python -m segmodels.dino.pretrain --help`."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from segmodels.backbones.ref import BackboneRef
from segmodels.backbones.registry import DEFAULT_CACHE
from segmodels.dino.images import cached_images
from segmodels.dino.salient_maps import cached_maps, cut_out_maps, salient_maps
from segmodels.dino.settings import PretrainSettings
from segmodels.dino.trainer import StepReport, Trainer
from segmodels.engine.distributed import Group, process_group
from segmodels.engine.lifetime import end_with_parent

CHECKPOINT = "checkpoint.pt"
PROGRESS = "progress.jsonl"


def pretrain(
    settings: PretrainSettings,
    sources: list[Path],
    out: Path,
    *,
    minutes: float = float("inf"),
    save_every: int = 200,
    report_every: int = 20,
    device: str = "cpu",
    start: BackboneRef | None = None,
    objects: BackboneRef | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Pre-train, or resume, until the schedule or the time is over.

    Under torchrun every process calls this; rank 0 writes the files and the log.

    Args:
        settings: settings of the run.
        sources: folders and tar shards of images.
        out: folder of the checkpoint, the progress lines, the decoded images and their object maps.
        minutes: stop after this long; a later call resumes.
        save_every, report_every: steps between two checkpoints, and between two progress lines; the
            last step of the schedule has both.
        device: torch device; under torchrun "cuda" is the GPU of each process's local rank.
        start: backbone whose weights initialise the run; None for random weights.
        objects: backbone for MaskCut on the images; None for hand-made saliency alone.
        log: takes one sentence at each report.

    Returns:
        Path of the checkpoint; `segmodels.dino.export` turns it into weights.

    Raises:
        CheckpointMismatchError: `out` holds the checkpoint of another run.
        ValueError: `settings.batch_size` is no multiple of the number of processes, or more than
            the number of images.
        RuntimeError: the weights of `start` belong to a transformer of another shape.
    """
    checkpoint = out / CHECKPOINT
    with process_group(device) as group:
        trainer = _trainer(settings, sources, out, start, objects, group, log)
        deadline = time.monotonic() + 60 * minutes
        since, first = time.monotonic(), trainer.step
        while trainer.step < settings.steps and group.agree(time.monotonic() < deadline):
            number = trainer.step + 1
            due = number % report_every == 0 or number == settings.steps
            measure = group.leads and due
            report = trainer.train_step(measure)
            if measure:
                speed = (trainer.step - first) * settings.batch_size / (time.monotonic() - since)
                since, first = time.monotonic(), trainer.step
                _write_progress(report, speed, out / PROGRESS)
                _log_progress(report, settings, speed, log)
            if trainer.step % save_every == 0:
                trainer.save(checkpoint)
        with group.leader_first():
            trainer.save(checkpoint)
    return checkpoint


def _trainer(
    settings: PretrainSettings,
    sources: list[Path],
    out: Path,
    start: BackboneRef | None,
    objects: BackboneRef | None,
    group: Group,
    log: Callable[[str], None],
) -> Trainer:
    """Read the images, their object maps and the weights to start from; resume an earlier run."""
    group.check_batch(settings.batch_size)
    with group.leader_first():
        images = cached_images(sources, out, settings.photo_size)
        cells = settings.saliency.cells
        if settings.learns_objects:
            maps = _object_maps(images, cells, objects, log)
        else:
            maps = np.zeros((len(images), cells, cells), np.uint8)
        weights = None if start is None else start.load().state()
    trainer = Trainer(settings, images, maps, group.device, weights, group)
    if (out / CHECKPOINT).is_file():
        trainer.resume(out / CHECKPOINT)
        if group.leads:
            log(f"resuming at step {trainer.step}")
    return trainer


def _object_maps(
    images: np.memmap, cells: int, objects: BackboneRef | None, log: Callable[[str], None]
) -> np.ndarray:
    """Object maps (n, cells, cells) uint8 of the images, cached beside their file."""
    decoded = Path(str(images.filename))
    if objects is None:
        path = decoded.with_name(f"{decoded.stem}-{cells}.maps")
        return cached_maps(len(images), cells, path, lambda: salient_maps(images, cells), log)
    backbone = objects.load()
    path = decoded.with_name(f"{decoded.stem}-{cells}-{backbone.digest[:16]}.maps")
    return cached_maps(len(images), cells, path, lambda: cut_out_maps(images, cells, backbone), log)


def _write_progress(report: StepReport, speed: float, path: Path) -> None:
    """Append one JSON line."""
    with path.open("a") as file:
        file.write(json.dumps({**asdict(report), "photos_per_second": speed}) + "\n")


def _log_progress(
    report: StepReport, settings: PretrainSettings, speed: float, log: Callable[[str], None]
) -> None:
    """Log one readable line, and a warning where the targets or the features collapse."""
    collapse = report.collapse
    assert collapse is not None
    step = report.step + 1
    numbers = {
        "cls": report.cls_loss,
        "patch": report.patch_loss,
        "saliency": report.saliency_loss,
        "shape": report.shape_loss,
        "sharpness": collapse.sharpness,
        "spread": collapse.spread,
        "rank": collapse.rank,
    }
    values = " ".join(f"{name} {value:.3g}" for name, value in numbers.items() if value)
    log(f"step {step}/{settings.steps} loss {report.loss:.3f} {values} {speed:.0f} images/s")
    warning = collapse.warning()
    if warning and report.step > settings.warmup * settings.steps:
        log(f"warning: collapse at step {step}: {warning}")


def main() -> None:
    """Parse the command line and run."""
    if torch.distributed.is_torchelastic_launched():
        end_with_parent()
    standard = PretrainSettings()
    parser = argparse.ArgumentParser(
        prog="python -m segmodels.dino.pretrain",
        description="Pre-train the backbone with DINO on unlabelled images; "
        "run again with the same arguments to resume.",
    )
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders, tar shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long")
    sizes = ("steps", "batch_size", "learning_rate", "depth", "seed")
    for name in (*sizes, "dino_weight", "patch_weight", "student_keep"):
        default = getattr(standard, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    for loss in ("saliency", "shape"):
        default = getattr(standard, loss).weight
        parser.add_argument(f"--{loss}-weight", type=float, default=default)
    parser.add_argument("--start", help="backbone to start from: a name or a weights file")
    parser.add_argument(
        "--objects",
        help="backbone for MaskCut on the images, for a further run; "
        "default: hand-made saliency alone",
    )
    parser.add_argument(
        "--cache-folder",
        type=Path,
        default=DEFAULT_CACHE,
        help="where official weights are kept, default: %(default)s",
    )
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    given = vars(parser.parse_args())
    if threads := given.pop("threads"):
        torch.set_num_threads(threads)
    run = {name: given.pop(name) for name in ("out", "minutes", "device")}
    run["sources"] = given.pop("images")
    cache_folder = given.pop("cache_folder")
    for name in ("start", "objects"):
        backbone = given.pop(name)
        run[name] = BackboneRef(backbone, cache_folder=cache_folder) if backbone else None
    for loss in ("saliency", "shape"):
        given[loss] = replace(getattr(standard, loss), weight=given.pop(f"{loss}_weight"))
    pretrain(replace(standard, **given), log=lambda line: print(line, flush=True), **run)


if __name__ == "__main__":
    main()
