"""Masks of photographs from their keys: MaskCut, the dense CRF, and back to the photograph's size.

CutLER, sec. 3.1, with the constants and the order of its published program.
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
    """What decides an image's masks; the defaults are MaskCut's as published for DINO ViT-B/8.

    Attributes:
        image_size: Side of the square working image, px: the size the keys were computed at.
        tau: Patches whose keys' cosine exceeds it are joined; in (-1, 1).
        eps: Affinity of patches that are not joined; in (0, 1).
        max_masks: Masks looked for in an image.
        center_keys: Subtract the image's mean key first; what the weights recommend.
        use_crf: Refine with the dense CRF.
        crf_min_iou: A mask whose overlap with its refined self is smaller is dropped.
        backend: Where cuts and CRF are computed.
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
    """One object found without labels.

    Attributes:
        mask: (H, W) bool at the photograph's own size, not empty.
        score: Overlap (IoU, 0 to 1) of the mask before and after its refinement, at the working
            size. The measure is ours: MaskCut gives no score.
        repetition: Which cut found it, from 0; earlier cuts are the more salient.
    """

    mask: np.ndarray
    score: float
    repetition: int


@dataclass(frozen=True, eq=False)
class Discovery:
    """What MaskCut found in one photograph.

    Attributes:
        masks: at most `max_masks`, in the order of their cuts. They may overlap: only the patch
            masks before refinement are disjoint.
        dense_fallbacks: cuts that needed the slow dense eigen-solver.
    """

    masks: list[DiscoveredMask]
    dense_fallbacks: int


def discover_masks(
    images: Sequence[np.ndarray], keys: np.ndarray, settings: MaskCutSettings
) -> list[Discovery]:
    """Find photographs' objects, each photograph's as if it were alone.

    Args:
        images: n photographs, (H, W, 3) uint8 RGB, each at its own size.
        keys: (n, gh, gw, d) float: the patches' keys of the images resized to the working square.
        settings: The method's constants.
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
    return [Discovery(masks, cut.dense_fallbacks) for masks, cut in zip(refined, cuts, strict=True)]


def refine_patch_masks(
    images: Sequence[np.ndarray], patch_masks: np.ndarray, settings: MaskCutSettings
) -> list[list[DiscoveredMask]]:
    """Refine patch masks on their photographs and bring them to the photographs' sizes.

    Args:
        images: n photographs, (H, W, 3) uint8 RGB, each at its own size.
        patch_masks: (n, max_masks, gh, gw) bool; a rejected cut is all False and stays so.
        settings: The method's constants.
    """
    coarse = _enlarge(patch_masks, settings.image_size)
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
    """The masks (max_masks, size, size) that refinement did not change too much."""
    found = []
    for repetition in np.flatnonzero(coarse.any(axis=(1, 2))):
        before, after = coarse[repetition], refined[repetition]
        score = float(mask_iou(before[None], after[None])[0, 0])
        mask = _resize_to_photograph(after, image.shape[0], image.shape[1])
        if score >= min_iou and mask.any():
            found.append(DiscoveredMask(mask, score, int(repetition)))
    return found


def _enlarge(masks: np.ndarray, size: int) -> np.ndarray:
    """Nearest-neighbour resizing of (..., gh, gw) to (..., size, size)."""
    rows = np.arange(size) * masks.shape[-2] // size
    columns = np.arange(size) * masks.shape[-1] // size
    return masks[..., rows[:, None], columns]


def _resize_to_photograph(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic in 8 bits, cut at half of its maximum, as MaskCut does: (height, width) bool."""
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = np.asarray(levels.resize((width, height), Image.Resampling.BICUBIC))
    enlarged: np.ndarray = resized > resized.max() / 2
    return enlarged
