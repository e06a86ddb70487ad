"""Train U2Seg's segmenter on a pseudo-label folder; resumes where an earlier run stopped.

``python -m segmodels.detector.training --help``; under torchrun the same command uses all processes.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segmodels.detector.registration import quiet_third_parties, register
from segmodels.detector.settings import TrainSettings
from segmodels.formats.atomic import write_json

if TYPE_CHECKING:
    from mmengine.config import Config

Progress = Callable[[dict[str, Any]], None]

CONFIG_FILE = "config.py"
RUN_FILE = "run.json"
RESULT_FILE = "result.json"
# What may change between a run and its resumption.
_FREE_SETTINGS = ("checkpoint_every", "keep_checkpoints", "progress_every", "workers")
_run_numbers = count()


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a training run.

    Attributes:
        checkpoint: the last checkpoint.
        losses: losses of the last reported iteration, by mmengine's names.
        iterations: iterations the weights have seen.
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
    resume: bool = True,
) -> TrainResult:
    """Train, or continue, one segmenter (U2Seg sec. 3.3).

    The work directory is mmengine's: ``config.py``, ``iter_*.pth``, ``last_checkpoint``, logs
    and ``vis_data/scalars.json``; ``result.json`` appears when the run is complete.

    Args:
        images_table: Arrow table of the images.
        pseudo_labels: pseudo-label folder of one clustering.
        work_dir: where the run lives.
        settings: how to train.
        device: ``cpu``, ``cuda`` or ``cuda:<n>``.
        on_progress: takes {iteration, total, eta_s, learning_rate, losses...} now and then.
        resume: continue from the work directory's last checkpoint; False discards it.

    Raises:
        ValueError: the inputs do not fit, or the work directory holds another run.
        NonFiniteLossError: training diverged.
    """
    register()
    from mmengine.dist import barrier

    from segmodels.detector.dataset import count_clusters
    from segmodels.detector.runner import process_group
    from segmodels.detector.train_config import build_train_config

    place = Path(work_dir).absolute()
    target = torch.device(device)
    config = build_train_config(
        settings,
        images_table=Path(images_table).absolute(),
        pseudo_labels=Path(pseudo_labels).absolute(),
        work_dir=place,
        clusters=count_clusters(pseudo_labels),
        device=target,
    )
    total = config.train_cfg.max_iters
    with process_group(target) as rank:
        if rank == 0:
            _claim(place, settings, resume=resume)
        barrier()
        finished = _finished(place, total)
        if finished is not None:
            return finished
        losses = run_training(
            config, device=target, on_progress=on_progress, interval=settings.progress_every
        )
        if rank == 0:
            write_json(place / RESULT_FILE, {"iterations": total, "losses": losses})
    return TrainResult(place / f"iter_{total}.pth", losses, total)


def run_training(
    config: "Config",
    *,
    device: torch.device,
    on_progress: Progress | None = None,
    interval: int = 20,
) -> dict[str, float]:
    """Run a complete configuration to its end; returns the last losses.

    Args:
        config: as made by ``build_train_config``.
        device: where the model trains.
        on_progress: see :func:`train_segmenter`.
        interval: iterations between two reports.
    """
    register()
    from segmodels.detector.runner import SegmenterRunner
    from segmodels.detector.train_config import named
    from segmodels.detector.train_loop import ProgressHook

    place = Path(config.work_dir)
    config = named(config, place / CONFIG_FILE)
    # mmengine keeps loggers and message hubs by this name for the life of the process.
    config.experiment_name = f"u2seg-{os.getpid()}-{next(_run_numbers)}"
    last = last_checkpoint(place)
    if last is not None:
        config.load_from, config.resume = str(last), True
    progress = ProgressHook(on_progress, interval)
    with quiet_third_parties():
        runner = SegmenterRunner.on_device(config, device)
        runner.register_hook(progress)
        runner.train()
    return progress.last_losses


def final_losses(work_dir: str | Path) -> dict[str, float]:
    """The losses of the last iteration of a finished run, by mmengine's names."""
    content = json.loads((Path(work_dir) / RESULT_FILE).read_text(encoding="utf-8"))
    return dict(content["losses"])


def read_scalars(work_dir: str | Path) -> list[dict[str, float]]:
    """The losses that a finished or interrupted run has logged, by rising iteration."""
    by_step: dict[int, dict[str, float]] = {}
    for file in sorted(Path(work_dir).glob("**/vis_data/scalars.json")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "loss" in record:
                by_step[record["step"]] = record
    return [by_step[step] for step in sorted(by_step)]


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a work directory, also when the directory was moved."""
    pointer = Path(work_dir) / "last_checkpoint"
    if not pointer.is_file():
        return None
    path = Path(work_dir) / Path(pointer.read_text(encoding="utf-8").strip()).name
    return path if path.is_file() else None


def _claim(place: Path, settings: TrainSettings, *, resume: bool) -> None:
    """Make the work directory this run's own, or make sure that it already is."""
    fixed = {k: v for k, v in asdict(settings).items() if k not in _FREE_SETTINGS}
    wanted = json.loads(json.dumps(fixed))
    record = place / RUN_FILE
    if not resume:
        for old in [*place.glob("iter_*.pth"), place / "last_checkpoint", record]:
            old.unlink(missing_ok=True)
        (place / RESULT_FILE).unlink(missing_ok=True)
    elif record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if changed:
            raise ValueError(
                f"{place} holds a run with other settings ({', '.join(changed)}): choose another "
                "work directory, or train with resume off to discard it"
            )
    write_json(record, wanted)


def _finished(place: Path, total: int) -> TrainResult | None:
    last = last_checkpoint(place)
    if last is None or not (place / RESULT_FILE).is_file():
        return None
    done = int(re.findall(r"\d+", last.stem)[-1])
    content = json.loads((place / RESULT_FILE).read_text(encoding="utf-8"))
    return TrainResult(last, content["losses"], done) if done == total else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line entrance."""
    parser = argparse.ArgumentParser(
        prog="python -m segmodels.detector.training", description=__doc__
    )
    parser.add_argument("images_table", help="Arrow table of the images")
    parser.add_argument("pseudo_labels", help="pseudo-label folder of one clustering")
    parser.add_argument("work_dir", help="where checkpoints and logs go")
    parser.add_argument("--settings", help="JSON file with the fields of TrainSettings")
    parser.add_argument("--device", help="cpu, cuda or cuda:<n>; a GPU where there is one")
    parser.add_argument("--restart", action="store_true", help="discard an earlier run")
    given = parser.parse_args(arguments)
    settings = TrainSettings()
    if given.settings is not None:
        settings = TrainSettings.from_json(Path(given.settings).read_text(encoding="utf-8"))
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    result = train_segmenter(
        given.images_table, given.pseudo_labels, given.work_dir, settings,
        device=device, on_progress=_print_progress, resume=not given.restart,
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"checkpoint": str(result.checkpoint), "losses": result.losses}))


def _print_progress(report: dict[str, Any]) -> None:
    print(json.dumps({k: round(v, 5) for k, v in report.items()}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
