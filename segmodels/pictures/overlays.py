"""Draws masks and panoptic maps over images."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from segmodels.pictures.palette import stuff_colour, thing_colour
from segmodels.pictures.sheets import Picture

_OUTLINE = np.array([255, 255, 255], dtype=np.float32)


def overlay_masks(image: Picture, masks: NDArray[np.bool_], *, opacity: float = 0.5) -> Picture:
    """Tint and outline every mask in its own colour, later masks on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (m, H, W) bool.
        opacity: of the tint, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the masks are not of the image's size.
    """
    if masks.shape[1:] != image.shape[:2]:
        raise ValueError(
            f"masks must be (m, {image.shape[0]}, {image.shape[1]}), got {masks.shape}"
        )
    segments = np.zeros(image.shape[:2], dtype=np.int32)
    for number, mask in enumerate(masks, start=1):
        segments[mask] = number
    colours = np.array([thing_colour(number) for number in range(len(masks) + 1)])
    return _tint(image, segments, colours, opacity)


def overlay_panoptic(
    image: Picture,
    segment_map: NDArray[np.integer],
    categories: Mapping[int, tuple[int, bool]],
    *,
    opacity: float = 0.6,
) -> Picture:
    """Tint a panoptic map: vivid things, muted stuff, white outlines; void is not tinted.

    Args:
        image: (H, W, 3) uint8 RGB.
        segment_map: (H, W) segment ids; 0 is void.
        categories: segment id -> (category id, whether it is a thing). A category has the same colour in
            every picture; things of one category in a picture differ slightly in lightness.
        opacity: of the tint, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the map is not of the image's size.
    """
    if segment_map.shape != image.shape[:2]:
        raise ValueError(f"segment_map must be {image.shape[:2]}, got {segment_map.shape}")
    ids, dense = np.unique(segment_map, return_inverse=True)
    colours = np.zeros((len(ids) + 1, 3), dtype=np.uint8)
    seen: dict[int, int] = {}
    for row, segment_id in enumerate(ids.tolist(), start=1):
        if segment_id in categories:
            category_id, is_thing = categories[segment_id]
            nth = seen.get(category_id, 0)
            seen[category_id] = nth + 1
            colours[row] = thing_colour(category_id, nth) if is_thing else stuff_colour(category_id)
    known = np.array([segment_id in categories for segment_id in ids.tolist()], dtype=bool)
    segments = np.where(known[dense], dense + 1, 0).reshape(segment_map.shape)
    return _tint(image, segments, colours, opacity)


def dim_outside(image: Picture, mask: NDArray[np.bool_]) -> Picture:
    """Fade the image (H, W, 3) outside a mask (H, W) towards white."""
    faded = (image.astype(np.float32) * 0.35 + 255 * 0.65).astype(np.uint8)
    return np.asarray(np.where(mask[..., None], image, faded), dtype=np.uint8)


def _tint(
    image: Picture, segments: NDArray[np.integer], colours: NDArray[np.uint8], opacity: float
) -> Picture:
    """Blend colours[segments] into the image where segments > 0, then draw the outlines."""
    share = np.where(segments > 0, np.float32(opacity), np.float32(0))[..., None]
    blended = image * (1 - share) + colours[segments].astype(np.float32) * share
    edge = _outline(segments, thickness=max(1, round(min(image.shape[:2]) / 320)))
    blended[edge] = 0.15 * blended[edge] + 0.85 * _OUTLINE
    return np.asarray(np.clip(np.round(blended), 0, 255), dtype=np.uint8)


def _outline(segments: NDArray[np.integer], thickness: int) -> NDArray[np.bool_]:
    """Pixels beside another segment, widened to the thickness."""
    edge = np.zeros(segments.shape, dtype=bool)
    edge[:, 1:] |= segments[:, 1:] != segments[:, :-1]
    edge[1:] |= segments[1:] != segments[:-1]
    for _ in range(thickness - 1):
        wider = edge.copy()
        wider[:, :-1] |= edge[:, 1:]
        wider[:-1] |= edge[1:]
        edge = wider
    return edge
