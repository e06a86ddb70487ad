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

    Args:
        dim: width of the code.
        num_clusters: number of centres S.
        generator: source of the initial centres.
    """

    def __init__(self, dim: int, num_clusters: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(num_clusters, dim, generator=generator))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Cosine of each code (n, dim, h, w) with each centre: (n, S, h, w) in [-1, 1]."""
        return torch.einsum(
            "ndhw,sd->nshw",
            functional.normalize(codes, dim=1),
            functional.normalize(self.centres, dim=1),
        )

    def loss(self, codes: torch.Tensor) -> torch.Tensor:
        """Mean negative cosine of each code with its nearest centre (hard assignment)."""
        return -self(codes).amax(dim=1).mean()
