"""Train the segmenter (U2Seg sec. 3.3) on a pseudo-label folder, with exact resume.

``python -m segmodels.detector.training --help``; it also runs under torchrun.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segmodels.detector.pseudo_labels import count_categories
from segmodels.detector.registration import quiet_third_parties, register
from segmodels.detector.settings import TrainSettings
from segmodels.engine.checkpoint import CheckpointMismatchError
from segmodels.engine.device import resolve_device
from segmodels.engine.distributed import process_group
from segmodels.engine.progress import Log, Progress, discard
from segmodels.engine.settings import deciding_settings
from segmodels.formats.atomic import write_json

if TYPE_CHECKING:
    from mmengine.config import Config

CONFIG_FILE = "config.py"
RUN_FILE = "run.json"
RESULT_FILE = "result.json"
# A run may be resumed with other values of these.
_MEASURED = {"time", "data_time", "memory"}
_run_numbers = count()


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run.

    Attributes:
        checkpoint: the last checkpoint.
        losses: losses of the last iteration, by mmengine's names.
        iterations: iterations that the checkpoint was trained for.
    """

    checkpoint: Path
    losses: dict[str, float]
    iterations: int


def train_segmenter(
    images_table: str | Path,
    pseudo_labels: str | Path,
    work_dir: str | Path,
    settings: TrainSettings,
    *,
    device: str = "cpu",
    on_progress: Progress | None = None,
    log: Log = discard,
    resume: bool = True,
) -> TrainResult:
    """Train a segmenter, or resume its training (U2Seg sec. 3.3).

    The work directory is mmengine's: ``config.py``, ``iter_*.pth``, ``last_checkpoint``, logs
    and ``vis_data/scalars.json``; ``result.json`` is written when training is complete.

    Args:
        images_table: Arrow table of the images.
        pseudo_labels: pseudo-label folder of one clustering.
        work_dir: folder of the run.
        settings: how to train.
        device: ``cpu``, ``cuda`` or ``cuda:<n>``.
        on_progress: takes {step, total, losses..., learning_rate, seconds_left} every
            ``settings.progress_every`` iterations.
        log: takes a sentence where a run is resumed.
        resume: continue from the last checkpoint of the work directory; False discards it.

    Raises:
        ValueError: the inputs are inconsistent.
        CheckpointMismatchError: the work directory holds a run with other settings.
        NonFiniteLossError: training diverged.
    """
    register()
    from mmengine.dist import barrier

    from segmodels.detector.train_config import build_train_config

    folder = Path(work_dir).absolute()
    num_things, num_stuff = count_categories(pseudo_labels)
    # mmengine would join the process group itself, but insists on a GPU.
    with process_group(device) as group:
        config = build_train_config(
            settings,
            images_table=Path(images_table).absolute(),
            pseudo_labels=Path(pseudo_labels).absolute(),
            work_dir=folder,
            num_things=num_things,
            num_stuff=num_stuff,
            device=group.device,
            processes=group.size,
        )
        iterations = config.train_cfg.max_iters
        if group.leads:
            _claim(folder, settings, resume=resume)
        barrier()
        checkpoint, result = folder / f"iter_{iterations}.pth", folder / RESULT_FILE
        if last_checkpoint(folder) == checkpoint and result.is_file():
            losses = json.loads(result.read_text(encoding="utf-8"))["losses"]
        else:
            last = last_checkpoint(folder)
            if last is not None and group.leads:
                log(f"resuming after {last.name}")
            losses = _run(config, group.device, on_progress, settings.progress_every)
            if group.leads:
                _drop_old_checkpoints(folder, settings.keep_checkpoints)
                write_json(result, {"iterations": iterations, "losses": losses})
    return TrainResult(checkpoint, losses, iterations)


def _run(
    config: "Config", device: torch.device, on_progress: Progress | None, interval: int
) -> dict[str, float]:
    """Train by a complete configuration; returns the losses of the last iteration."""
    from segmodels.detector.runner import SegmenterRunner
    from segmodels.detector.train_config import with_file_name
    from segmodels.detector.train_loop import ProgressHook

    folder = Path(config.work_dir)
    config = with_file_name(config, folder / CONFIG_FILE)
    # mmengine keeps one logger and message hub per name for the life of the process.
    config.experiment_name = f"u2seg-{os.getpid()}-{next(_run_numbers)}"
    last = last_checkpoint(folder)
    if last is not None:
        config.load_from, config.resume = str(last), True
    progress = ProgressHook(on_progress, interval)
    with quiet_third_parties():
        runner = SegmenterRunner.on_device(config, device)
        runner.register_hook(progress)
        runner.train()
    return progress.last_losses


def training_summary(work_dir: str | Path) -> dict[str, Any]:
    """Summarise a finished run.

    Returns:
        ``losses``: of the last iteration, by mmengine's names; ``history``: about 200 of the
        records that mmengine has logged, by rising ``step``.
    """
    result = json.loads((Path(work_dir) / RESULT_FILE).read_text(encoding="utf-8"))
    by_step: dict[int, dict[str, float]] = {}
    for file in sorted(Path(work_dir).glob("**/vis_data/scalars.json")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "loss" in record:
                # Seconds and bytes are of the machine, not of the result.
                by_step[record["step"]] = {
                    name: value for name, value in record.items() if name not in _MEASURED
                }
    history = [by_step[step] for step in sorted(by_step)]
    return {"losses": result["losses"], "history": history[:: max(1, len(history) // 200)]}


def _drop_old_checkpoints(folder: Path, keep: int) -> None:
    """Remove checkpoints that a killed run left: a resumed one counts its own alone."""
    by_iteration = sorted(folder.glob("iter_*.pth"), key=lambda path: int(path.stem[5:]))
    for path in by_iteration[:-keep]:
        path.unlink()


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """Find the newest complete checkpoint of a work directory, which may have been moved."""
    pointer = Path(work_dir) / "last_checkpoint"
    if not pointer.is_file():
        return None
    path = Path(work_dir) / Path(pointer.read_text(encoding="utf-8").strip()).name
    return path if path.is_file() else None


def _claim(folder: Path, settings: TrainSettings, *, resume: bool) -> None:
    """Record the settings in the work directory, or check that it holds the same run."""
    fixed = json.loads(json.dumps(deciding_settings(settings)))
    record = folder / RUN_FILE
    if not resume:
        names = ("last_checkpoint", RUN_FILE, RESULT_FILE)
        for old in [*folder.glob("iter_*.pth"), *(folder / name for name in names)]:
            old.unlink(missing_ok=True)
    elif record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(k for k in fixed.keys() | found.keys() if fixed.get(k) != found.get(k))
        if changed:
            raise CheckpointMismatchError(
                f"{folder} holds a run with other settings ({', '.join(changed)}): choose another "
                "work directory, or discard the run with resume=False (--restart)"
            )
    write_json(record, fixed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m segmodels.detector.training", description=__doc__
    )
    parser.add_argument("images_table", help="Arrow table of the images")
    parser.add_argument("pseudo_labels", help="pseudo-label folder of one clustering")
    parser.add_argument("work_dir", help="folder of checkpoints and logs")
    parser.add_argument("--settings", help="JSON file with the fields of TrainSettings")
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU where there is one), cpu, cuda or cuda:<n>"
    )
    parser.add_argument("--restart", action="store_true", help="discard an earlier run")
    options = parser.parse_args(arguments)
    settings = TrainSettings()
    if options.settings is not None:
        settings = TrainSettings.from_json(Path(options.settings).read_text(encoding="utf-8"))
    result = train_segmenter(
        options.images_table, options.pseudo_labels, options.work_dir, settings,
        device=resolve_device(options.device), on_progress=_print_progress,
        resume=not options.restart,
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"checkpoint": str(result.checkpoint), "losses": result.losses}))


def _print_progress(report: Mapping[str, float]) -> None:
    print(json.dumps({k: round(v, 5) for k, v in report.items()}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
