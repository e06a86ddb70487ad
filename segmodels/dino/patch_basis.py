"""A first layer that already knows photographs: principal components of their patches.

Random first layers spend the first thousands of steps on finding colours and edges. The principal
components of patches are such filters, found without labels in a second; their deviations are
brought halfway, in log scale, to one another, so that neither the mean colour nor noise rules.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.backbones.pixels import normalised_pixels
from segmodels.backbones.vit import PatchEmbed

_SAMPLE = 400


def set_patch_basis(embed: PatchEmbed, photos: np.ndarray) -> None:
    """Fill a patch projection with the principal components of photographs' patches, in place.

    Output has mean 0 and, over all channels, deviation 1. Channels beyond the number of
    components (3 * patch_size ** 2) keep their weights.

    Args:
        embed: the projection to fill.
        photos: (n, S, S, 3) uint8 RGB; an evenly spaced sample of them is looked at.
    """
    projection: nn.Conv2d = embed.proj
    size = projection.kernel_size[0]
    patches = _patches(photos, size)
    mean = patches.mean(dim=0)
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    count = min(projection.out_channels, len(variances))
    order = torch.arange(len(variances) - 1, len(variances) - 1 - count, -1)
    # The sign of an eigenvector is arbitrary: the entry of largest magnitude is made positive.
    basis = components[:, order].T
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    basis = basis * largest.sign() * variances[order].clamp(min=1e-3)[:, None] ** -0.25
    basis = basis / ((patches - mean) @ basis.T).std()
    with torch.no_grad():
        projection.weight[:count] = basis.reshape(count, 3, size, size)
        assert projection.bias is not None
        projection.bias[:count] = -(basis @ mean)


def _patches(photos: np.ndarray, size: int) -> Tensor:
    """Normalised patches (m, 3 * size * size), channels first."""
    chosen = np.unique(np.linspace(0, len(photos) - 1, _SAMPLE).astype(int))
    pixels = torch.from_numpy(np.stack([normalised_pixels(photos[i]) for i in chosen]))
    return functional.unfold(pixels, size, stride=size).transpose(1, 2).flatten(0, 1)
