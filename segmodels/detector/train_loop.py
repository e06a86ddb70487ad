"""mmengine's training loop and hooks: exact resume, safe checkpoints, progress."""

# The classes of MMDetection and mmengine have no types.

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS, LOOPS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from segmodels.engine.progress import Progress, check_finite


@LOOPS.register_module(force=True)
class PositionTrainLoop(IterBasedTrainLoop):
    """Iterations over a :class:`~segmodels.detector.dataset.SeededStream`.

    A resumed run starts the stream at its position; mmengine's loop would load and discard every
    batch of the finished iterations.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_iters: int) -> None:
        super().__init__(runner, dataloader, max_iters)
        self.dataloader_iterator = None  # the parent class starts at position 0

    def run(self) -> torch.nn.Module:
        """Train up to the last iteration."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        self.dataloader.sampler.start = self._iter * self.dataloader.batch_size
        batches = iter(self.dataloader)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model


@HOOKS.register_module(force=True)
class IterationSeedHook(Hook):
    """Seed torch by (seed, iteration, rank) before each iteration, for exact resume."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the random sampling of anchors and regions."""
        words = np.random.SeedSequence([runner.seed, runner.iter, runner.rank]).generate_state(1)
        torch.manual_seed(int(words[0]))


@HOOKS.register_module(force=True)
class FiniteLossHook(Hook):
    """Stop at the first loss that is not finite, before a checkpoint is written."""

    priority = "VERY_HIGH"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check the losses.

        Raises:
            NonFiniteLossError: one is infinite or NaN.
        """
        check_finite(plain_losses(outputs), runner.iter + 1)


@HOOKS.register_module(force=True)
class SafeCheckpointHook(Hook):
    """Keep checkpoints loadable with ``weights_only`` and free of timestamps."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Reduce mmengine's records beside the weights to plain values."""
        hub = checkpoint["message_hub"]
        hub["log_scalars"] = {}
        hub["runtime_info"] = {
            key: value
            for key, value in hub["runtime_info"].items()
            if type(value) in {int, float, str} and key not in {"cfg", "experiment_name"}
        }
        for stamp in ("time", "experiment_name"):
            checkpoint["meta"].pop(stamp, None)


@HOOKS.register_module(force=True)
class InitCheckpointHook(Hook):
    """Start a new run from the weights of a backbone or a segmenter.

    Args:
        path: checkpoint file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def before_train(self, runner: Runner) -> None:
        """Load the weights, unless the run resumes."""
        if runner.iter == 0:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            load_init_weights(model, self.path)


def load_init_weights(model: torch.nn.Module, path: str | Path) -> None:
    """Load the weights of a backbone (torchvision's names, as DINO's ResNet-50) or of a segmenter.

    Layers of another shape (other numbers of clusters) keep their random initialisation.

    Raises:
        ValueError: the file lacks tensors of the backbone.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model", "teacher"):
        content = content.get(key, content)
    weights = {
        name.removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    if not any(name.startswith("backbone.") for name in weights):
        weights = {f"backbone.{name}": value for name, value in weights.items()}
    own = model.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape
    }
    missing = [
        name
        for name in own
        if name.startswith("backbone.")
        and not name.endswith("num_batches_tracked")
        and name not in fitting
    ]
    if missing:
        raise ValueError(
            f"{path} does not fit this backbone: {len(missing)} of its tensors are missing or of "
            f"another shape, for example {missing[0].removeprefix('backbone.')}"
        )
    model.load_state_dict(fitting, strict=False)


class ProgressHook(Hook):
    """Report progress from rank 0.

    Args:
        on_progress: takes {"step", "total", every loss, "learning_rate", "seconds_left"}.
        interval: iterations between reports.
    """

    priority = "LOW"

    def __init__(self, on_progress: Progress | None, interval: int) -> None:
        self.on_progress = on_progress
        self.interval = interval
        self.last_losses: dict[str, float] = {}
        self._start = (0, 0.0)

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._start = (runner.iter, time.monotonic())

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Report every ``interval`` iterations and at the end."""
        done = runner.iter + 1
        if done % self.interval and done != runner.max_iters:
            return
        self.last_losses = plain_losses(outputs)
        if self.on_progress is None or runner.rank != 0:
            return
        first, began = self._start
        seconds = (time.monotonic() - began) / (done - first)
        self.on_progress(
            {
                "step": done,
                "total": runner.max_iters,
                **self.last_losses,
                "learning_rate": float(runner.optim_wrapper.get_lr()["lr"][0]),
                "seconds_left": seconds * (runner.max_iters - done),
            }
        )


def plain_losses(outputs: Mapping[str, Any]) -> dict[str, float]:
    """Return the outputs of a training step whose name contains "loss", as floats."""
    return {
        name: float(torch.as_tensor(value).detach())
        for name, value in outputs.items()
        if "loss" in name
    }
