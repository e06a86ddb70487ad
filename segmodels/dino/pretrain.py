"""Command line of DINO pre-training: `python -m segmodels.dino.pretrain --help`."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from segmodels.backbones.ref import BackboneRef
from segmodels.backbones.registry import DEFAULT_CACHE
from segmodels.dino.collapse import CollapseMetrics
from segmodels.dino.images import cached_images
from segmodels.dino.salient_maps import cached_maps, cut_out_maps, salient_maps
from segmodels.dino.settings import PretrainSettings
from segmodels.dino.trainer import Trainer
from segmodels.engine.distributed import Group, process_group
from segmodels.engine.lifetime import end_with_parent
from segmodels.engine.progress import Log, Progress, discard, progress_sentence
from segmodels.engine.training import train

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
    on_progress: Progress = discard,
    log: Log = print,
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
        on_progress: takes the losses, the collapse metrics and the speed.
        log: takes a sentence about images, a resumed run, or a collapse.

    Returns:
        Path of the checkpoint; `segmodels.dino.export` turns it into weights.

    Raises:
        CheckpointMismatchError: `out` holds the checkpoint of another run.
        NonFiniteLossError: a loss is infinite or NaN.
        ValueError: `settings.batch_size` is no multiple of the number of processes, or more than
            the number of images.
        RuntimeError: the weights of `start` belong to a transformer of another shape.
    """
    checkpoint = out / CHECKPOINT

    def report(numbers: Mapping[str, float]) -> None:
        _write_progress(numbers, settings, out / PROGRESS)
        on_progress(numbers)
        _warn_of_collapse(numbers, settings, log)

    with process_group(device) as group:
        train(
            _trainer(settings, sources, out, start, objects, group, log),
            checkpoint,
            group=group,
            checkpoint_every=save_every,
            report_every=report_every,
            minutes=minutes,
            on_progress=report,
            log=log,
        )
    return checkpoint


def _trainer(
    settings: PretrainSettings,
    sources: list[Path],
    out: Path,
    start: BackboneRef | None,
    objects: BackboneRef | None,
    group: Group,
    log: Log,
) -> Trainer:
    """Read the images, their object maps and the weights to start from."""
    group.check_batch(settings.batch_size)
    with group.leader_first():
        images = cached_images(sources, out, settings.photo_size)
        cells = settings.saliency.cells
        if settings.learns_objects:
            maps = _object_maps(images, cells, objects, log)
        else:
            maps = np.zeros((len(images), cells, cells), np.uint8)
        weights = None if start is None else start.load().state()
    return Trainer(settings, images, maps, group.device, weights, group)


def _object_maps(
    images: np.memmap, cells: int, objects: BackboneRef | None, log: Log
) -> np.ndarray:
    """Object maps (n, cells, cells) uint8 of the images, cached beside their file."""
    decoded = Path(str(images.filename))
    if objects is None:
        path = decoded.with_name(f"{decoded.stem}-{cells}.maps")
        return cached_maps(len(images), cells, path, lambda: salient_maps(images, cells), log)
    backbone = objects.load()
    path = decoded.with_name(f"{decoded.stem}-{cells}-{backbone.digest[:16]}.maps")
    return cached_maps(len(images), cells, path, lambda: cut_out_maps(images, cells, backbone), log)


def _collapse(numbers: Mapping[str, float]) -> CollapseMetrics:
    return CollapseMetrics(numbers.get("sharpness"), numbers.get("spread"), numbers["rank"])


def _write_progress(numbers: Mapping[str, float], settings: PretrainSettings, path: Path) -> None:
    """Append one JSON line; its step counts from 0."""
    losses = ("loss", "cls_loss", "patch_loss", "saliency_loss", "shape_loss", "learning_rate")
    line = {
        "step": int(numbers["step"]) - 1,
        **{name: numbers[name] for name in losses},
        "collapse": asdict(_collapse(numbers)),
        "photos_per_second": numbers["steps_per_second"] * settings.batch_size,
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _warn_of_collapse(numbers: Mapping[str, float], settings: PretrainSettings, log: Log) -> None:
    warning = _collapse(numbers).warning()
    if warning and numbers["step"] - 1 > settings.warmup * settings.steps:
        log(f"warning: collapse at step {numbers['step']:.0f}: {warning}")


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

    def log(sentence: str) -> None:
        print(sentence, flush=True)

    def report(numbers: Mapping[str, float]) -> None:
        log(progress_sentence(numbers))

    pretrain(replace(standard, **given), on_progress=report, log=log, **run)


if __name__ == "__main__":
    main()
