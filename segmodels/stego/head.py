"""STEGO's segmentation head and cluster probe (STEGO sec. 3; its `src/modules.py`)."""

import math

import torch
from torch import nn
from torch.nn import functional


def drop_channels(
    features: torch.Tensor, share: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Zero whole channels of each map at random and scale the others up (channel dropout).

    Args:
        features: (n, d, h, w).
        share: probability that a channel of one map is dropped, in [0, 1).
        generator: source of chance; None returns the features unchanged.
    """
    if generator is None or share == 0:
        return features
    kept = torch.rand(features.shape[:2], generator=generator) >= share
    scale = kept.to(features.device, features.dtype) / (1 - share)
    return features * scale[:, :, None, None]


def _pointwise(inputs: int, outputs: int, generator: torch.Generator) -> nn.Conv2d:
    """A 1x1 convolution with torch's usual initial range, drawn from `generator`."""
    layer = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 1)
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


class SegmentationHead(nn.Module):
    """Code of each patch: a linear 1x1 branch plus a 1x1, ReLU, 1x1 branch.

    Args:
        in_dim: width of the backbone's tokens; also the width of the hidden layer.
        dim: width of the code, 70 as published.
        dropout: channel dropout of each branch's own input while training.
        generator: source of the initial weights.
    """

    def __init__(
        self, in_dim: int, dim: int, *, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.linear = _pointwise(in_dim, dim, generator)
        self.hidden = _pointwise(in_dim, in_dim, generator)
        self.output = _pointwise(in_dim, dim, generator)

    def forward(
        self, features: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Map features (n, in_dim, h, w) to codes (n, dim, h, w).

        Args:
            features: tokens as a map.
            generator: given while training, it draws each branch's dropped channels.
        """
        linear = self.linear(drop_channels(features, self.dropout, generator))
        hidden = self.hidden(drop_channels(features, self.dropout, generator))
        return linear + self.output(functional.relu(hidden))


class ClusterProbe(nn.Module):
    """Cluster centres that follow the codes by online k-means on the unit sphere.

    They start at length 1, where the published code leaves them at sqrt(dim): the loss knows their
    direction only, and long ones turn too slowly to follow the codes in a few hundred steps.

    Args:
        dim: width of the code.
        num_clusters: number of centres S.
        generator: source of the initial centres.
    """

    def __init__(self, dim: int, num_clusters: int, *, generator: torch.Generator) -> None:
        super().__init__()
        directions = torch.randn(num_clusters, dim, generator=generator)
        self.centres = nn.Parameter(functional.normalize(directions, dim=1))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Cosine of each code (n, dim, h, w) with each centre: (n, S, h, w) in [-1, 1]."""
        return torch.einsum(
            "ndhw,sd->nshw",
            functional.normalize(codes, dim=1),
            functional.normalize(self.centres, dim=1),
        )

    def loss(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Online k-means with hard assignment.

        Returns:
            The mean negative cosine of each code with its nearest centre, a scalar, and the
            number of codes that each centre won, (S,) int64.
        """
        best = self(codes).max(dim=1)
        wins = torch.bincount(best.indices.flatten(), minlength=len(self.centres))
        return -best.values.mean(), wins

    @torch.no_grad()
    def revive(self, unused: torch.Tensor, codes: torch.Tensor, generator: torch.Generator) -> None:
        """Move unused centres onto codes that fit no centre well, as k-means++ chooses seeds.

        A centre that wins no code gets no gradient and would stay where chance put it for good.

        Args:
            unused: (S,) bool, on the CPU.
            codes: (n, dim, h, w) to choose from, each with a chance in proportion to its squared
                distance to the nearest centre (on the unit sphere, 2 - 2 cosines).
            generator: source of chance, on the CPU.
        """
        candidates = functional.normalize(codes, dim=1).movedim(1, -1).flatten(0, 2)
        kept = functional.normalize(self.centres[~unused.to(codes.device)], dim=1)
        distance = 1 - (candidates @ kept.T).amax(dim=1)
        for centre in unused.nonzero().flatten().tolist():
            chances = distance.clamp(min=1e-6).cpu()
            chosen = torch.multinomial(chances, 1, generator=generator).item()
            self.centres[centre] = candidates[int(chosen)]
            distance = torch.minimum(distance, 1 - candidates @ candidates[int(chosen)])
