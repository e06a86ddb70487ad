"""Stuff segments of an image by a trained STEGO model (STEGO `src/eval_segmentation.py`)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from kernels.crf import mean_field
from segmodels.backbones.backbone import Backbone
from segmodels.backbones.pixels import normalised_pixels
from segmodels.stego.crops import resize, working_size
from segmodels.stego.model import StegoModel
from segmodels.stego.settings import SegmentationSettings

ALPHA = 2.0
"""Factor of the cosines in the softmax (STEGO `src/eval_segmentation.py`)."""


@dataclass(frozen=True, eq=False)
class StuffScores:
    """Scores of an image before the CRF.

    Attributes:
        image: (h, w, 3) uint8 RGB at the working size.
        log_probabilities: (S, h, w) float32.
        size: height and width of the original image, px.
    """

    image: np.ndarray
    log_probabilities: np.ndarray
    size: tuple[int, int]


def segment_stuff(
    image: np.ndarray,
    backbone: Backbone,
    model: StegoModel,
    settings: SegmentationSettings,
) -> np.ndarray:
    """Assign every pixel of an image to a stuff cluster.

    Args:
        image: (H, W, 3) uint8 RGB.
        backbone: the backbone that the model was trained with.
        model: from `train_stego`.
        settings: size and CRF.

    Returns:
        (H, W) uint8 in [0, S), or uint16 if S is above 256.
    """
    return choose_clusters(score_stuff(image, backbone, model, settings), settings)


def score_stuff(
    image: np.ndarray,
    backbone: Backbone,
    model: StegoModel,
    settings: SegmentationSettings,
) -> StuffScores:
    """Run the network at the working size: the first half of `segment_stuff`."""
    height, width = image.shape[:2]
    rows, columns = working_size(
        height,
        width,
        size=settings.size,
        patch_size=backbone.patch_size,
        long_side_limit=settings.long_side_limit,
    )
    small = resize(image, rows, columns, settings.resample)
    return StuffScores(small, cluster_log_probabilities(small, backbone, model), (height, width))


def choose_clusters(scores: StuffScores, settings: SegmentationSettings) -> np.ndarray:
    """CRF and argmax: the second half of `segment_stuff`, which may run in another thread."""
    probabilities = scores.log_probabilities
    if settings.crf:
        probabilities = mean_field(scores.image, -probabilities, settings.crf_settings)
    dtype = np.uint8 if len(probabilities) <= 256 else np.uint16
    return nearest_resize(probabilities.argmax(axis=0).astype(dtype), *scores.size)


def cluster_log_probabilities(
    image: np.ndarray, backbone: Backbone, model: StegoModel
) -> np.ndarray:
    """Log probability of each cluster at each pixel, by the mean code of image and mirror image.

    Args:
        image: (H, W, 3) uint8 RGB, both sides multiples of the patch size.
        backbone: gives the tokens.
        model: gives codes and centroids.

    Returns:
        (S, H, W) float32.
    """
    pixels = torch.from_numpy(normalised_pixels(image))
    with torch.inference_mode():
        tokens = backbone.extract(torch.stack([pixels, pixels.flip(-1)])).tokens
        plain, mirrored = model.codes(tokens)
        code = (plain + mirrored.flip(-1))[None] / 2
        code = functional.interpolate(
            code, size=image.shape[:2], mode="bilinear", align_corners=False
        )
        return functional.log_softmax(ALPHA * model.probe(code), dim=1)[0].cpu().numpy()


def nearest_resize(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a label map to (height, width): each pixel takes the label under its centre."""
    rows = ((np.arange(height) + 0.5) * (labels.shape[0] / height)).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * (labels.shape[1] / width)).astype(np.int64)
    return np.asarray(labels[rows[:, None], columns[None, :]])
