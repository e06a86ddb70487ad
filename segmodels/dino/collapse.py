"""Signs of collapse in self-distillation: entropies of the targets and rank of the features."""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor


@dataclass(frozen=True)
class CollapseMetrics:
    """Health of a step; the first two are None where self-distillation is left out.

    Attributes:
        sharpness: 1 - mean entropy of one photograph's target / log k; 0 is uniform (collapse).
        spread: entropy of the mean target / log k; 0 is one prototype for all (collapse).
        rank: effective rank of the features (RankMe); 1 is collapse.
    """

    sharpness: float | None
    spread: float | None
    rank: float

    def warning(self) -> str | None:
        """Say in one sentence which collapse the numbers show, if any."""
        if self.sharpness is not None and self.sharpness < 0.01:
            return "targets are uniform: lower teacher_temperature"
        if self.spread is not None and self.spread < 0.1:
            return "all photographs share few prototypes: raise teacher_temperature"
        if self.rank < 2:
            return "features span fewer than two dimensions: lower learning_rate"
        return None


def collapse_metrics(targets: Tensor | None, features: Tensor) -> CollapseMetrics:
    """Measure target probabilities (n, k), if there are any, and features (m, d) of one step."""
    if targets is None:
        return CollapseMetrics(None, None, effective_rank(features))
    k = targets.shape[1]
    return CollapseMetrics(
        sharpness=1 - float(_entropy(targets.float()).mean()) / log(k),
        spread=float(_entropy(targets.float().mean(dim=0))) / log(k),
        rank=effective_rank(features),
    )


def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the singular values' shares, rows centred (RankMe)."""
    features = features.float()
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    total = values.sum()
    if total <= torch.finfo(torch.float32).tiny:
        return 1.0
    return float(_entropy(values / total).exp())


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.special.xlogy(probabilities, probabilities).sum(dim=-1)
