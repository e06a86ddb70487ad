"""Training of STEGO's head and cluster probe on stored features (STEGO sec. 3 and 4.5)."""

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
"""A centre is unused when it wins less than this share of an even share of the patches."""


@dataclass(frozen=True)
class StegoSettings:
    """Training of the STEGO head; the defaults are the published ones but for the loss.

    Attributes:
        steps: optimiser steps. The model of the LAST step is kept: STEGO's code keeps the
            checkpoint with the best labelled validation score, which is not label-free.
        batch_size: views a step, at least 2.
        dim: width of the code.
        num_clusters: cluster centres S.
        seed: of weights, batches, points, pairings and dropout.
        lr: Adam's rate for the head.
        probe_lr: Adam's rate for the cluster centres.
        dropout: channel dropout of the head's inputs and of the features in the loss.
        positive_ranks: a positive is drawn from this many nearest neighbours.
        revive_every: steps between two looks for cluster centres that win (almost) no patch;
            they are moved onto badly fitted patches, in the first three quarters of the steps.
            0 leaves them unused, as published; with a few hundred steps most stay so.
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
    """One neighbour of each index, uniform over its nearest `ranks`.

    Args:
        neighbours: (n, k) int, nearest first, without the view itself.
        indices: (b,) int rows of it.
        ranks: how many of the nearest take part; all k when k is smaller.
        rng: source of chance.

    Returns:
        (b,) int.
    """
    columns = rng.integers(0, min(ranks, neighbours.shape[1]), size=len(indices))
    return neighbours[indices, columns]


def read_maps(features: Any, indices: np.ndarray, device: str | torch.device) -> torch.Tensor:
    """Read views (n, gh, gw, d) by number: (b, d, gh, gw) float32; repeats are read once."""
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
    """Train the head by correspondence and the centres by online k-means on its detached code.

    Args:
        features: (n, gh, gw, d) float array, or anything with that shape which gives one view
            for `features[i]` (a NumPy or Zarr array).
        neighbours: (n, k) int64 table from `neighbour_table`.
        settings: see `StegoSettings`.
        on_progress: told the step and the loss.
        device: where to compute; chance is drawn on the CPU, whatever the device.

    Returns:
        The model after the last step.

    Raises:
        ValueError: fewer than two views, or a table of another length.
    """
    n, in_dim = features.shape[0], features.shape[-1]
    if n < 2:
        raise ValueError(f"STEGO needs at least 2 views to train on, got {n}")
    if len(neighbours) != n:
        raise ValueError(f"neighbours must have {n} rows, one a view, got {len(neighbours)}")
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
    usage = _CentreUsage(probe, settings)
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
        probe_loss, wins = probe.loss(codes[0].detach())
        (parts.total + probe_loss).backward()
        optimiser.step()
        usage.after(step, wins, codes[0].detach(), generator)
        if step % REPORT_EVERY == 0 or step == settings.steps:
            terms = (parts.total, parts.same, parts.neighbour, parts.random)
            history.append([float(step), *(term.item() for term in terms)])
            if on_progress is not None:
                on_progress(step, history[-1][1])
    return StegoModel(head.eval(), probe.eval(), np.asarray(history, np.float32))


def _batches(n: int, settings: StegoSettings, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of min(batch_size, n) distinct views, epoch after shuffled epoch."""
    size = min(settings.batch_size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


class _CentreUsage:
    """Counts what each centre wins, and revives the unused."""

    def __init__(self, probe: ClusterProbe, settings: StegoSettings) -> None:
        self._probe = probe
        self._every = settings.revive_every
        self._last = settings.steps * 3 // 4
        self._wins = torch.zeros(settings.num_clusters, dtype=torch.int64)

    def after(
        self, step: int, wins: torch.Tensor, codes: torch.Tensor, generator: torch.Generator
    ) -> None:
        """Count one step; at the end of an interval, look for unused centres."""
        if self._every == 0 or step > self._last:
            return
        self._wins += wins.cpu()
        if step % self._every == 0:
            unused = self._wins < UNUSED_SHARE * self._wins.sum() / len(self._wins)
            if unused.any():
                self._probe.revive(unused, codes, generator)
            self._wins.zero_()
