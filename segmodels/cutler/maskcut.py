"""MaskCut and dense CRF: from the keys of images to masks at the images' own sizes.

CutLER sec. 3.1, with the constants and the order of its released code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kernels.backend import Backend
from kernels.crf import refine_batch
from kernels.morphology import fill_holes
from kernels.ncut import maskcut_batch
from kernels.ncut.keys import center_keys
from kernels.overlaps import mask_iou
from segmodels.backbones.pixels import resize_square


@dataclass(frozen=True)
class MaskCutSettings:
    """MaskCut's settings; the defaults are those published for DINO ViT-B/8.

    Attributes:
        image_size: side of the square image that the keys were computed from, px.
        tau: affinity threshold on the cosine of two keys, in (-1, 1).
        eps: affinity of patches below the threshold, in (0, 1).
        max_masks: masks per image.
        center_keys: subtract the image's mean key before the cosine.
        use_crf: refine with the dense CRF.
        crf_min_iou: discard a mask whose IoU with its refinement is lower.
        backend: where cuts and CRF are computed.
    """

    image_size: int = 480
    tau: float = 0.15
    eps: float = 1e-5
    max_masks: int = 3
    center_keys: bool = False
    use_crf: bool = True
    crf_min_iou: float = 0.5
    backend: Backend = "auto"


@dataclass(frozen=True, eq=False)
class DiscoveredMask:
    """One object found by MaskCut.

    Attributes:
        mask: (H, W) bool at the image's own size, not empty.
        score: IoU of the mask before and after refinement, at `image_size`. The score is ours;
            MaskCut has none.
        repetition: cut that found it, from 0; earlier cuts are more salient.
    """

    mask: np.ndarray
    score: float
    repetition: int


@dataclass(frozen=True, eq=False)
class ImageMasks:
    """MaskCut's masks of one image.

    Attributes:
        masks: at most `max_masks`, by rising repetition. They may overlap: only the patch masks
            before refinement are disjoint.
        dense_fallbacks: cuts that needed the slow dense eigensolver.
    """

    masks: list[DiscoveredMask]
    dense_fallbacks: int


def discover_masks(
    images: Sequence[np.ndarray], keys: np.ndarray, settings: MaskCutSettings
) -> list[ImageMasks]:
    """Run MaskCut on a batch of images; results do not depend on the batch.

    Args:
        images: n images, (H, W, 3) uint8 RGB, each at its own size.
        keys: (n, gh, gw, d) float, patch keys of the images at `image_size`.
        settings: of MaskCut.

    Raises:
        ValueError: `keys` has another shape.
    """
    if keys.ndim != 4 or len(keys) != len(images):
        raise ValueError(f"keys must be ({len(images)}, gh, gw, d), got {keys.shape}")
    keys = keys.astype(np.float32)
    if settings.center_keys:
        keys = np.stack([center_keys(image_keys) for image_keys in keys])
    cuts = maskcut_batch(
        keys,
        tau=settings.tau,
        eps=settings.eps,
        max_masks=settings.max_masks,
        backend=settings.backend,
    )
    patch_masks = np.stack([cut.masks for cut in cuts])
    refined = refine_patch_masks(images, patch_masks, settings)
    return [
        ImageMasks(masks, cut.dense_fallbacks) for masks, cut in zip(refined, cuts, strict=True)
    ]


def refine_patch_masks(
    images: Sequence[np.ndarray], patch_masks: np.ndarray, settings: MaskCutSettings
) -> list[list[DiscoveredMask]]:
    """Refine patch masks with the CRF and resize them to the images' own sizes.

    Args:
        images: n images, (H, W, 3) uint8 RGB, each at its own size.
        patch_masks: (n, max_masks, gh, gw) bool; a rejected cut is all False.
        settings: of MaskCut.
    """
    coarse = _resize_nearest(patch_masks, settings.image_size)
    refined = coarse
    if settings.use_crf:
        small = np.stack([resize_square(image, settings.image_size) for image in images])
        refined = refine_batch(small, coarse, backend=settings.backend)
    return [
        _accepted(image, before, fill_holes(after), settings.crf_min_iou)
        for image, before, after in zip(images, coarse, refined, strict=True)
    ]


def _accepted(
    image: np.ndarray, coarse: np.ndarray, refined: np.ndarray, min_iou: float
) -> list[DiscoveredMask]:
    """Masks whose refinement kept the IoU; both arrays are (max_masks, size, size) bool."""
    found = []
    for repetition in np.flatnonzero(coarse.any(axis=(1, 2))):
        before, after = coarse[repetition], refined[repetition]
        score = float(mask_iou(before[None], after[None])[0, 0])
        mask = _resize_bicubic(after, image.shape[0], image.shape[1])
        if score >= min_iou and mask.any():
            found.append(DiscoveredMask(mask, score, int(repetition)))
    return found


def _resize_nearest(masks: np.ndarray, size: int) -> np.ndarray:
    """Nearest-neighbour resizing of (..., gh, gw) to (..., size, size)."""
    rows = np.arange(size) * masks.shape[-2] // size
    columns = np.arange(size) * masks.shape[-1] // size
    return masks[..., rows[:, None], columns]


def _resize_bicubic(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic resizing in 8 bits, thresholded at half the maximum as MaskCut does."""
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = np.asarray(levels.resize((width, height), Image.Resampling.BICUBIC))
    enlarged: np.ndarray = resized > resized.max() / 2
    return enlarged
