"""Hand-made patch features, the yardstick that a trained backbone has to beat.

Lab colour, gradient magnitude and six orientation energies, averaged over three windows and with
their spread over a fourth: 40 values a patch, standardised per image.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmodels.backbones.pixels import resize_square
from segmodels.u2seg.embeddings import pool_mask

SIZE, PATCH = 480, 8
_WINDOWS, _SPREAD_WINDOW = (8, 24, 56), 16
_ORIENTATIONS = np.arange(6) * np.pi / 6
_ORIENTATION_WIDTH = np.pi / 8


class DescriptorFeatures:
    """The descriptors as patch features, cut with the constants that MaskCut was published with.

    An instance's vector is the mean descriptor inside its mask.
    """

    image_size, tau, center_keys = SIZE, 0.15, False

    def keys(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Descriptors (60, 60, 40) of an image of any size."""
        return descriptors(resize_square(image, SIZE))

    def embed(self, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Vectors (m, 40) of the instances under masks (m, H, W)."""
        patches = self.keys(image)
        weights = np.stack([pool_mask(mask, patches.shape[:2]) for mask in masks])
        total = np.einsum("mij,ijd->md", weights, patches)
        return np.asarray(total / weights.sum(axis=(1, 2))[:, None], np.float32)


def descriptors(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features (60, 60, 40) of an image (480, 480, 3) uint8 RGB."""
    channels = _channels(image)
    maps = [ndimage.uniform_filter(channel, window) for window in _WINDOWS for channel in channels]
    for channel in channels:
        mean = ndimage.uniform_filter(channel, _SPREAD_WINDOW)
        square = ndimage.uniform_filter(channel**2, _SPREAD_WINDOW)
        maps.append(np.sqrt(np.maximum(square - mean**2, 0)))
    grid = SIZE // PATCH
    stacked = np.stack(maps, axis=-1).reshape(grid, PATCH, grid, PATCH, len(maps))
    patches = stacked.mean(axis=(1, 3))
    spread = patches.std(axis=(0, 1))
    standard: NDArray[np.float32] = (
        (patches - patches.mean(axis=(0, 1))) / np.maximum(spread, 1e-6)
    ).astype(np.float32)
    return standard


def _channels(image: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Lab, gradient magnitude of L, and its energy around six orientations: ten (480, 480)."""
    from skimage.color import rgb2lab

    lab = rgb2lab(image)
    down, right = np.gradient(lab[..., 0])
    magnitude, angle = np.hypot(down, right), np.arctan2(down, right)
    energies = []
    for orientation in _ORIENTATIONS:
        away = (angle - orientation + np.pi / 2) % np.pi - np.pi / 2
        energies.append(magnitude * np.exp(-(away**2) / (2 * _ORIENTATION_WIDTH**2)))
    return [lab[..., 0], lab[..., 1], lab[..., 2], magnitude, *energies]
