"""Training of STEGO's segmentation head and cluster probe on stored features (STEGO sec. 3)."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segmodels.engine.progress import Log, Progress, discard
from segmodels.engine.training import train
from segmodels.stego.features import POSITIVE_RANKS
from segmodels.stego.head import ClusterProbe, SegmentationHead, drop_channels
from segmodels.stego.loss import LossSettings, stego_loss
from segmodels.stego.model import StegoModel
from segmodels.stego.presets import LOSS_PRESETS

REPORT_EVERY = 10

UNUSED_SHARE = 0.05
"""A centroid is unused if it has less than this fraction of its even share of the patches."""


@dataclass(frozen=True)
class StegoSettings:
    """Settings of STEGO's training; the defaults are the published ones except for the loss.

    Attributes:
        steps: optimiser steps. The model of the LAST step is kept; STEGO's code keeps the
            checkpoint with the best validation score, which needs labels.
        batch_size: views a step, at least 2.
        dim: width of the code.
        num_clusters: centroids S, at least 2.
        seed: of weights, batches, points, pairings and dropout.
        lr: Adam's learning rate for the head.
        probe_lr: Adam's learning rate for the centroids.
        dropout: channel dropout of the head's inputs and of the features in the loss.
        positive_ranks: a kNN positive is drawn from this many nearest neighbours.
        revive_every: steps between two checks for unused centroids, which are re-seeded (see
            `ClusterProbe.revive`) in the first three quarters of the steps. 0 never re-seeds, as
            published; in a few hundred steps most centroids then stay unused.
        loss: the correspondence loss; see `presets.loss_preset`.
    """

    steps: int = 5000
    batch_size: int = 16
    dim: int = 70
    num_clusters: int = 27
    seed: int = 0
    lr: float = 5e-4
    probe_lr: float = 5e-3
    dropout: float = 0.1
    positive_ranks: int = POSITIVE_RANKS
    revive_every: int = 25
    loss: LossSettings = field(default_factory=lambda: LOSS_PRESETS["quantile"])

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}")
        if self.revive_every < 0:
            raise ValueError(f"revive_every must be at least 0, got {self.revive_every}")
        if self.num_clusters < 2:
            raise ValueError(f"num_clusters must be at least 2, got {self.num_clusters}")


def draw_positives(
    neighbours: np.ndarray, indices: np.ndarray, ranks: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw a kNN positive of each index, uniformly from its nearest `ranks` neighbours.

    Args:
        neighbours: (n, k) int kNN table, nearest first, without the view itself.
        indices: (b,) int rows of it.
        ranks: number of nearest neighbours to draw from; all k if k is smaller.
        rng: source of every random draw.

    Returns:
        (b,) int.
    """
    columns = rng.integers(0, min(ranks, neighbours.shape[1]), size=len(indices))
    return np.asarray(neighbours[indices, columns])


def read_maps(features: Any, indices: np.ndarray, device: str | torch.device) -> torch.Tensor:
    """Read views of (n, gh, gw, d) by index: (b, d, gh, gw) float32; each view is read once."""
    unique, inverse = np.unique(indices, return_inverse=True)
    maps = np.stack([np.asarray(features[int(index)]) for index in unique]).astype(np.float32)
    return torch.from_numpy(maps[inverse]).permute(0, 3, 1, 2).to(device)


def train_stego(
    features: Any,
    neighbours: np.ndarray,
    settings: StegoSettings,
    on_progress: Progress = discard,
    *,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
    log: Log = discard,
) -> StegoModel:
    """Train the head by the correspondence loss and the cluster probe on its detached code.

    Args:
        features: (n, gh, gw, d) float, a NumPy array, a Zarr array or `StoredViews`.
        neighbours: (n, k) int64 from `neighbour_table`.
        settings: see `StegoSettings`.
        on_progress: takes the losses, each `REPORT_EVERY` steps and after the last.
        device: torch device; random numbers are drawn on the CPU for every device.
        checkpoint: file from which an interrupted training continues; None keeps none.
        checkpoint_every: steps between two checkpoints.
        log: takes a sentence where a training continues.

    Returns:
        The model after the last step.

    Raises:
        ValueError: there are fewer than two views, or not one row of `neighbours` for each.
        CheckpointMismatchError: the checkpoint is of other settings or views.
        NonFiniteLossError: a loss is infinite or NaN.
    """
    training = StegoTraining(features, neighbours, settings, device)
    train(
        training,
        checkpoint,
        checkpoint_every=checkpoint_every,
        report_every=REPORT_EVERY,
        on_progress=on_progress,
        log=log,
    )
    history = np.asarray(training.history, np.float32)
    return StegoModel(training.head.eval(), training.probe.eval(), history)


class StegoTraining:
    """Head, probe, optimiser and random generators of one run, for the loop of `segmodels.engine`.

    Args: see `train_stego`.
    """

    def __init__(
        self,
        features: Any,
        neighbours: np.ndarray,
        settings: StegoSettings,
        device: str | torch.device = "cpu",
    ) -> None:
        n, in_dim = features.shape[0], features.shape[-1]
        if n < 2:
            raise ValueError(f"STEGO needs at least 2 views to train on, got {n}")
        if len(neighbours) != n:
            raise ValueError(
                f"neighbours must have {n} rows, one for each view, got {len(neighbours)}"
            )
        self.features = features
        self.neighbours = neighbours
        self.settings = settings
        self.device = device
        self.step = 0
        self.total = settings.steps
        self.history: list[list[float]] = []
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._rng = np.random.default_rng(settings.seed)
        self.head = SegmentationHead(
            in_dim, settings.dim, dropout=settings.dropout, generator=self._generator
        )
        self.probe = ClusterProbe(settings.dim, settings.num_clusters, generator=self._generator)
        for module in (self.head, self.probe):
            module.to(device).train()
        self._optimiser = torch.optim.Adam(
            [
                {"params": self.head.parameters(), "lr": settings.lr},
                {"params": self.probe.parameters(), "lr": settings.probe_lr},
            ]
        )
        self._usage = torch.zeros(settings.num_clusters, dtype=torch.int64)
        self._order = torch.arange(n)
        views = hashlib.sha256(np.asarray(features[0]).tobytes() + neighbours.tobytes())
        self.identity = {
            "format": "exnihilo-stego-training-1",
            "settings": repr(asdict(settings)),
            "views": f"{tuple(features.shape)} {views.hexdigest()}",
        }

    def train_step(self, measure: bool) -> dict[str, float]:
        """Run one step; with `measure`, also read the three terms and extend the history."""
        settings, generator = self.settings, self._generator
        indices = self._batch()
        self.step += 1
        positives = draw_positives(self.neighbours, indices, settings.positive_ranks, self._rng)
        both = read_maps(self.features, np.concatenate([indices, positives]), self.device)
        maps, neighbour_maps = both.chunk(2)
        codes = self.head(maps, generator), self.head(neighbour_maps, generator)
        dropped = (
            drop_channels(maps, settings.dropout, generator),
            drop_channels(neighbour_maps, settings.dropout, generator),
        )
        parts = stego_loss(dropped, codes, settings.loss, generator)
        self._optimiser.zero_grad(set_to_none=True)
        probe_loss, counts = self.probe.loss(codes[0].detach())
        torch.autograd.backward(parts.total + probe_loss)
        self._optimiser.step()
        self._revive_unused(counts, codes[0].detach())
        numbers = {"loss": parts.total.item(), "probe_loss": probe_loss.item()}
        if measure:
            terms = {name: getattr(parts, name).item() for name in ("same", "neighbour", "random")}
            self.history.append([float(self.step), numbers["loss"], *terms.values()])
            numbers |= terms
        return numbers

    def state(self) -> dict[str, Any]:
        """Weights, optimiser, and what the next batch and draws depend on."""
        return {
            "head": self.head.state_dict(),
            "probe": self.probe.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "rng": self._rng.bit_generator.state,
            "order": self._order,
            "usage": self._usage,
            "history": self.history,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.head.load_state_dict(state["head"])
        self.probe.load_state_dict(state["probe"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])
        self._rng.bit_generator.state = state["rng"]
        self._order, self._usage = state["order"], state["usage"]
        self.history = state["history"]

    def _batch(self) -> np.ndarray:
        """The next min(batch_size, n) distinct views, (b,) int64; shuffled in each epoch."""
        size = min(self.settings.batch_size, len(self._order))
        position = self.step % (len(self._order) // size)
        if position == 0:
            self._order = torch.from_numpy(self._rng.permutation(len(self._order)))
        return self._order[position * size : (position + 1) * size].numpy()

    def _revive_unused(self, counts: torch.Tensor, codes: torch.Tensor) -> None:
        """Count a step's patches of each centroid; at the end of an interval, re-seed the unused."""
        every = self.settings.revive_every
        if every == 0 or self.step > self.total * 3 // 4:
            return
        self._usage += counts.cpu()
        if self.step % every == 0:
            unused = self._usage < UNUSED_SHARE * self._usage.sum() / len(self._usage)
            if unused.any():
                self.probe.revive(unused, codes, self._generator)
            self._usage.zero_()
