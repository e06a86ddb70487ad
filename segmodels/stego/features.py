"""STEGO's input: final-norm tokens of the views of an image, and the kNN table of all views."""

import numpy as np
import torch
from torch.nn import functional

from kernels.knn import nearest_neighbours
from segmodels.backbones.backbone import Backbone
from segmodels.backbones.pixels import normalised_pixels
from segmodels.stego.crops import training_views
from segmodels.stego.settings import ViewSettings

POSITIVE_RANKS = 7
"""A kNN positive is one of the 7 nearest other views (STEGO `src/data.py`)."""


def stego_features(image: np.ndarray, backbone: Backbone, settings: ViewSettings) -> np.ndarray:
    """Tokens of the whole image and of its five crops, after the final norm.

    Each region is resized by its short side and cropped to the central square, as in STEGO's
    loader. The six views of an image are one batch, so that its bits do not depend on its shard.

    Args:
        image: (H, W, 3) uint8 RGB.
        backbone: from `load_backbone`.
        settings: size and crops.

    Returns:
        (6, gh, gw, d) float16: whole image first, then the crops (`crops.NUM_VIEWS`).

    Raises:
        ValueError: `size` is no multiple of the patch size.
    """
    if settings.size < 1 or settings.size % backbone.patch_size:
        raise ValueError(
            f"STEGO's size must be a multiple of the patch size {backbone.patch_size}, "
            f"got {settings.size}"
        )
    views = training_views(
        image, settings.size, crop_ratio=settings.crop_ratio, resample=settings.resample
    )
    batch = np.stack([normalised_pixels(view) for view in views])
    with torch.inference_mode():
        tokens = backbone.extract(torch.from_numpy(batch)).tokens
    return tokens.to(torch.float16).cpu().numpy()


def mean_features(features: np.ndarray) -> np.ndarray:
    """Descriptor of each view for the kNN search: spatial mean, then L2 norm 1.

    Args:
        features: (n, gh, gw, d) float.

    Returns:
        (n, d) float32.
    """
    means = torch.from_numpy(features.astype(np.float32).mean(axis=(1, 2)))
    return functional.normalize(means, dim=1).numpy()


def neighbour_table(means: np.ndarray, k: int = POSITIVE_RANKS) -> np.ndarray:
    """kNN table: the k views most similar to each view, without itself, nearest first.

    Args:
        means: (n, d) float32 from `mean_features`; n at least 2.
        k: neighbours of a view; fewer if there are fewer other views.

    Returns:
        (n, min(k, n - 1)) int64 row numbers.

    Raises:
        ValueError: there are fewer than two views.
    """
    if len(means) < 2:
        raise ValueError(f"STEGO needs at least 2 views to find neighbours, got {len(means)}")
    return nearest_neighbours(means, min(k, len(means) - 1))
