"""Training of STEGO's segmentation head and cluster probe on stored features (STEGO sec. 3)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

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


Progress = Callable[[int, float], None]
"""Called as on_progress(step, total loss), each `REPORT_EVERY` steps and after the last."""


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
    on_progress: Progress | None = None,
    *,
    device: str | torch.device = "cpu",
) -> StegoModel:
    """Train the head by the correspondence loss and the cluster probe on its detached code.

    Args:
        features: (n, gh, gw, d) float, a NumPy array, a Zarr array or `StoredViews`.
        neighbours: (n, k) int64 from `neighbour_table`.
        settings: see `StegoSettings`.
        on_progress: takes the step and the loss.
        device: torch device; random numbers are drawn on the CPU for every device.

    Returns:
        The model after the last step.

    Raises:
        ValueError: there are fewer than two views, or not one row of `neighbours` for each.
    """
    n, in_dim = features.shape[0], features.shape[-1]
    if n < 2:
        raise ValueError(f"STEGO needs at least 2 views to train on, got {n}")
    if len(neighbours) != n:
        raise ValueError(f"neighbours must have {n} rows, one for each view, got {len(neighbours)}")
    generator = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    head = SegmentationHead(in_dim, settings.dim, dropout=settings.dropout, generator=generator)
    probe = ClusterProbe(settings.dim, settings.num_clusters, generator=generator)
    head, probe = head.to(device).train(), probe.to(device).train()
    optimiser = torch.optim.Adam(
        [
            {"params": head.parameters(), "lr": settings.lr},
            {"params": probe.parameters(), "lr": settings.probe_lr},
        ]
    )
    usage = _CentroidUsage(probe, settings)
    batches = _batches(n, settings, rng)
    history = []
    for step in range(1, settings.steps + 1):
        indices = next(batches)
        positives = draw_positives(neighbours, indices, settings.positive_ranks, rng)
        both = read_maps(features, np.concatenate([indices, positives]), device)
        maps, neighbour_maps = both.chunk(2)
        codes = head(maps, generator), head(neighbour_maps, generator)
        dropped = (
            drop_channels(maps, settings.dropout, generator),
            drop_channels(neighbour_maps, settings.dropout, generator),
        )
        parts = stego_loss(dropped, codes, settings.loss, generator)
        optimiser.zero_grad(set_to_none=True)
        probe_loss, counts = probe.loss(codes[0].detach())
        torch.autograd.backward(parts.total + probe_loss)
        optimiser.step()
        usage.after(step, counts, codes[0].detach(), generator)
        if step % REPORT_EVERY == 0 or step == settings.steps:
            terms = (parts.total, parts.same, parts.neighbour, parts.random)
            history.append([float(step), *(term.item() for term in terms)])
            if on_progress is not None:
                on_progress(step, history[-1][1])
    return StegoModel(head.eval(), probe.eval(), np.asarray(history, np.float32))


def _batches(n: int, settings: StegoSettings, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of min(batch_size, n) distinct views, shuffled in each epoch."""
    size = min(settings.batch_size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


class _CentroidUsage:
    """Counts the patches of each centroid and re-seeds unused centroids."""

    def __init__(self, probe: ClusterProbe, settings: StegoSettings) -> None:
        self._probe = probe
        self._every = settings.revive_every
        self._last = settings.steps * 3 // 4
        self._counts = torch.zeros(settings.num_clusters, dtype=torch.int64)

    def after(
        self, step: int, counts: torch.Tensor, codes: torch.Tensor, generator: torch.Generator
    ) -> None:
        """Count one step; at the end of an interval, re-seed the unused centroids."""
        if self._every == 0 or step > self._last:
            return
        self._counts += counts.cpu()
        if step % self._every == 0:
            unused = self._counts < UNUSED_SHARE * self._counts.sum() / len(self._counts)
            if unused.any():
                self._probe.revive(unused, codes, generator)
            self._counts.zero_()
