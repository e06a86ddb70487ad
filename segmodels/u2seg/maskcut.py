"""Masks of one photograph from its keys: MaskCut, the dense CRF, and back to the photograph's size.

CutLER, sec. 3.1, with the constants and the order of its published program.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kernels.affinity import center_keys
from kernels.backend import Backend
from kernels.crf import refine_masks
from kernels.morphology import fill_holes
from kernels.ncut import MaskCut, maskcut_batch
from kernels.overlaps import mask_iou
from segmodels.dino.pixels import resize_square


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


def discover_masks(
    image: np.ndarray, keys: np.ndarray, settings: MaskCutSettings
) -> list[DiscoveredMask]:
    """Find a photograph's objects.

    Args:
        image: (H, W, 3) uint8 RGB, at its own size.
        keys: (gh, gw, d) float: the patches' keys of the image resized to the working square.
        settings: The method's constants.

    Returns:
        At most `settings.max_masks` masks, in the order of their cuts. They may overlap: only the
        patch masks before refinement are disjoint.
    """
    if keys.ndim != 3:
        raise ValueError(f"keys must be (gh, gw, d), got {keys.shape}")
    (cut,) = cut_patches(keys[None], settings)
    return refine_patch_masks(image, cut.masks, settings)


def cut_patches(keys: np.ndarray, settings: MaskCutSettings) -> list[MaskCut]:
    """MaskCut on the patch grids of several images of one size.

    Args:
        keys: (n, gh, gw, d) float.
        settings: The method's constants.

    Returns:
        The cuts of each image.
    """
    keys = keys.astype(np.float32)
    if settings.center_keys:
        keys = np.stack([center_keys(image_keys) for image_keys in keys])
    return maskcut_batch(
        keys,
        tau=settings.tau,
        eps=settings.eps,
        max_masks=settings.max_masks,
        backend=settings.backend,
    )


def refine_patch_masks(
    image: np.ndarray, patch_masks: np.ndarray, settings: MaskCutSettings
) -> list[DiscoveredMask]:
    """Refine patch masks on the photograph and bring them to its size.

    Args:
        image: (H, W, 3) uint8 RGB, at its own size.
        patch_masks: (max_masks, gh, gw) bool.
        settings: The method's constants.

    Returns:
        See `discover_masks`.
    """
    # A rejected cut leaves an empty mask, which no refinement fills.
    repetitions = np.flatnonzero(patch_masks.any(axis=(1, 2)))
    coarse = _enlarge(patch_masks[repetitions], settings.image_size)
    refined = coarse
    if settings.use_crf:
        small = resize_square(image, settings.image_size)
        refined = refine_masks(small, coarse, backend=settings.backend)
    refined = fill_holes(refined)

    found = []
    for repetition, before, after in zip(repetitions, coarse, refined, strict=True):
        score = float(mask_iou(before[None], after[None])[0, 0])
        mask = _resize_to_photograph(after, image.shape[0], image.shape[1])
        if score >= settings.crf_min_iou and mask.any():
            found.append(DiscoveredMask(mask, score, int(repetition)))
    return found


def _enlarge(masks: np.ndarray, size: int) -> np.ndarray:
    """Nearest-neighbour resizing of (m, gh, gw) to (m, size, size)."""
    rows = np.arange(size) * masks.shape[1] // size
    columns = np.arange(size) * masks.shape[2] // size
    return masks[:, rows[:, None], columns]


def _resize_to_photograph(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic in 8 bits, cut at half of its maximum, as MaskCut does: (height, width) bool."""
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = np.asarray(levels.resize((width, height), Image.Resampling.BICUBIC))
    enlarged: np.ndarray = resized > resized.max() / 2
    return enlarged
