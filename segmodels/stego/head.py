"""STEGO's segmentation head and cluster probe (STEGO sec. 3; its `src/modules.py`)."""

import math

import torch
from torch import nn
from torch.nn import functional


def drop_channels(
    features: torch.Tensor, share: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Channel dropout: zero whole channels of each map at random and scale up the others.

    Args:
        features: (n, d, h, w).
        share: probability that a channel of one map is dropped, in [0, 1).
        generator: source of every random draw; None returns the features unchanged.
    """
    if generator is None or share == 0:
        return features
    kept = torch.rand(features.shape[:2], generator=generator) >= share
    scale = kept.to(features.device, features.dtype) / (1 - share)
    return features * scale[:, :, None, None]


def _pointwise(inputs: int, outputs: int, generator: torch.Generator) -> nn.Conv2d:
    """A 1x1 convolution with torch's default initialisation, drawn from `generator`."""
    # Built on the meta device, as the constructor would draw from torch's global generator.
    layer = nn.Conv2d(inputs, outputs, 1, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


class SegmentationHead(nn.Module):
    """Segmentation head, features to code: a linear 1x1 branch plus a 1x1, ReLU, 1x1 branch.

    Args:
        in_dim: width of the backbone's tokens; also the width of the hidden layer.
        dim: width of the code, 70 as published.
        dropout: channel dropout of each branch's input in training.
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
            features: tokens as maps.
            generator: draws the dropped channels of each branch; None outside training.
        """
        linear: torch.Tensor = self.linear(drop_channels(features, self.dropout, generator))
        hidden = self.hidden(drop_channels(features, self.dropout, generator))
        nonlinear: torch.Tensor = self.output(functional.relu(hidden))
        return linear + nonlinear


class ClusterProbe(nn.Module):
    """Cluster probe: centroids trained by online k-means on the codes, with cosine distance.

    The centroids start with length 1, in the published code with sqrt(dim): the loss depends on
    their directions only, and long ones turn too slowly to follow the codes in a few hundred steps.

    Args:
        dim: width of the code.
        num_clusters: number of centroids S.
        generator: source of the initial centroids.
    """

    def __init__(self, dim: int, num_clusters: int, *, generator: torch.Generator) -> None:
        super().__init__()
        directions = torch.randn(num_clusters, dim, generator=generator)
        self.centroids = nn.Parameter(functional.normalize(directions, dim=1))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Cosine of each code (n, dim, h, w) with each centroid: (n, S, h, w) in [-1, 1]."""
        return torch.einsum(
            "ndhw,sd->nshw",
            functional.normalize(codes, dim=1),
            functional.normalize(self.centroids, dim=1),
        )

    def loss(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of online k-means with hard assignment.

        Returns:
            The mean negative cosine of each code with its nearest centroid, a scalar, and the
            number of codes assigned to each centroid, (S,) int64.
        """
        best = self(codes).max(dim=1)
        counts = torch.bincount(best.indices.flatten(), minlength=len(self.centroids))
        return -best.values.mean(), counts

    @torch.no_grad()
    def revive(self, unused: torch.Tensor, codes: torch.Tensor, generator: torch.Generator) -> None:
        """Re-seed unused centroids by k-means++: a centroid without codes gets no gradient.

        Args:
            unused: (S,) bool, on the CPU.
            codes: (n, dim, h, w), candidates; each is drawn with a probability proportional to its
                squared distance to the nearest centroid (2 - 2 cosines on the unit sphere).
            generator: source of every random draw, on the CPU.
        """
        candidates = functional.normalize(codes, dim=1).movedim(1, -1).flatten(0, 2)
        kept = functional.normalize(self.centroids[~unused.to(codes.device)], dim=1)
        distance = 1 - (candidates @ kept.T).amax(dim=1)
        for centroid in unused.nonzero().flatten().tolist():
            weights = distance.clamp(min=1e-6).cpu()
            chosen = int(torch.multinomial(weights, 1, generator=generator).item())
            self.centroids[centroid] = candidates[chosen]
            distance = torch.minimum(distance, 1 - candidates @ candidates[chosen])
