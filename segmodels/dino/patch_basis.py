"""Initialise the patch embedding with the principal components of image patches.

A random first layer spends thousands of steps on learning colours and edges; the principal
components of patches are such filters. Their standard deviations are equalised halfway, on a log
scale, so that neither the mean colour nor noise dominates.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.backbones.pixels import normalised_pixels
from segmodels.backbones.vit import PatchEmbed

_SAMPLE = 400


def set_patch_basis(embed: PatchEmbed, images: np.ndarray) -> None:
    """Fill a patch projection with the principal components of image patches, in place.

    The output has mean 0 and, over all channels, standard deviation 1. Channels beyond the number
    of components (3 * patch_size ** 2) keep their weights.

    Args:
        embed: the projection to fill.
        images: (n, S, S, 3) uint8 RGB; 400 of them, evenly spaced, are read.
    """
    projection: nn.Conv2d = embed.proj
    size = projection.kernel_size[0]
    patches = _patches(images, size)
    mean = patches.mean(dim=0)
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    count = min(projection.out_channels, len(variances))
    order = torch.arange(len(variances) - 1, len(variances) - 1 - count, -1)
    # The sign of an eigenvector is arbitrary: make the entry of largest magnitude positive.
    basis = components[:, order].T
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    basis = basis * largest.sign() * variances[order].clamp(min=1e-3)[:, None] ** -0.25
    basis = basis / ((patches - mean) @ basis.T).std()
    with torch.no_grad():
        projection.weight[:count] = basis.reshape(count, 3, size, size)
        assert projection.bias is not None
        projection.bias[:count] = -(basis @ mean)


def _patches(images: np.ndarray, size: int) -> Tensor:
    """Normalised patches (m, 3 * size * size), channels first."""
    chosen = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int))
    pixels = torch.from_numpy(np.stack([normalised_pixels(images[i]) for i in chosen]))
    return functional.unfold(pixels, size, stride=size).transpose(1, 2).flatten(0, 1)
