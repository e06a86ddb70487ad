"""Collapse metrics of self-distillation: entropies of the targets, rank of the features."""

from dataclasses import asdict, dataclass
from math import log

import torch
from torch import Tensor


@dataclass(frozen=True)
class CollapseMetrics:
    """Collapse metrics of one step; the first two are None without self-distillation.

    Attributes:
        sharpness: 1 - mean entropy of the targets / log k; 0 is collapse to uniform targets.
        spread: entropy of the mean target / log k; 0 is collapse to one prototype.
        rank: effective rank of the features (RankMe); 1 is collapse.
    """

    sharpness: float | None
    spread: float | None
    rank: float

    def measured(self) -> dict[str, float]:
        """The metrics that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def warning(self) -> str | None:
        """The collapse that the metrics show, with its remedy; None if there is none."""
        if self.sharpness is not None and self.sharpness < 0.01:
            return "targets are uniform: lower teacher_temperature"
        if self.spread is not None and self.spread < 0.1:
            return "all images share few prototypes: raise teacher_temperature"
        if self.rank < 2:
            return "features span fewer than two dimensions: lower learning_rate"
        return None


def collapse_metrics(targets: Tensor | None, features: Tensor) -> CollapseMetrics:
    """Collapse metrics of target probabilities (n, k), if any, and of features (m, d)."""
    if targets is None:
        return CollapseMetrics(None, None, effective_rank(features))
    k = targets.shape[1]
    return CollapseMetrics(
        sharpness=1 - float(_entropy(targets.float()).mean()) / log(k),
        spread=float(_entropy(targets.float().mean(dim=0))) / log(k),
        rank=effective_rank(features),
    )


def effective_rank(features: Tensor) -> float:
    """Effective rank of centred features (m, d): exp of the singular values' entropy (RankMe)."""
    features = features.float()
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    total = values.sum()
    if total <= torch.finfo(torch.float32).tiny:
        return 1.0
    return float(_entropy(values / total).exp())


def _entropy(probabilities: Tensor) -> Tensor:
    terms: Tensor = torch.special.xlogy(probabilities, probabilities)
    return -terms.sum(dim=-1)
