"""Selection of the instance masks that become things (U2Seg sec. 3.2).

U2Seg publishes neither the confidence threshold nor the size limits of the masks it clusters, so
every filter is a setting of ours, and what each removed is counted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kernels.overlaps import mask_iou
from segmodels.formats.masks import decode_masks


@dataclass(frozen=True)
class ThingMaskSettings:
    """Filters, applied in this order.

    Attributes:
        min_score: masks with a lower score go.
        min_area_share: masks below this share of the image's area go.
        max_area_share: masks above this share go; they are the background cut the wrong way.
        max_border_share: masks that cover more than this share of the image's outermost pixels
            go: what runs along the border is mostly background. 1 keeps them all.
        max_overlap_iou: a mask goes when its IoU with a better one of the image is above this.
        max_per_image: at most so many masks an image, the best first.
    """

    min_score: float = 0.0
    min_area_share: float = 0.001
    max_area_share: float = 0.95
    max_border_share: float = 1.0
    max_overlap_iou: float = 0.8
    max_per_image: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.min_area_share <= self.max_area_share <= 1:
            raise ValueError(
                "area shares must satisfy 0 <= min_area_share <= max_area_share <= 1, got "
                f"{self.min_area_share} and {self.max_area_share}"
            )
        for name in ("max_border_share", "max_overlap_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.max_per_image < 1:
            raise ValueError(f"max_per_image must be at least 1, got {self.max_per_image}")


@dataclass(frozen=True)
class ThingSelection:
    """What was kept, and how many masks each filter removed.

    Attributes:
        table: the kept rows, unchanged and in their old order.
        removed: filter name -> masks; the names are those of the settings.
    """

    table: pa.Table
    removed: dict[str, int]


def select_things(masks: pa.Table, settings: ThingMaskSettings) -> ThingSelection:
    """Keep the masks that pass the filters on score, area, overlap and number.

    Args:
        masks: MASK_SCHEMA rows of one image or of many. Better means a higher score; equal
            scores are ordered by instance_id.
        settings: the filters.

    Returns:
        The kept rows and the counts.
    """
    score = masks["score"].to_numpy()
    share = masks["area"].to_numpy() / (
        masks["height"].to_numpy().astype(np.int64) * masks["width"].to_numpy()
    )
    removed: dict[str, int] = {}
    kept = np.ones(len(masks), dtype=bool)
    for name, passes in (
        ("min_score", score >= settings.min_score),
        ("min_area_share", share >= settings.min_area_share),
        ("max_area_share", share <= settings.max_area_share),
    ):
        removed[name] = int(np.count_nonzero(kept & ~passes))
        kept &= passes
    table, removed["max_border_share"] = _filter_images(
        masks.filter(pa.array(kept)),
        lambda rows: np.flatnonzero(border_shares(decode_masks(rows)) <= settings.max_border_share),
    )
    table, removed["max_overlap_iou"] = _filter_images(
        table, lambda rows: _distinct(rows, settings.max_overlap_iou)
    )
    table, removed["max_per_image"] = _filter_images(
        table, lambda rows: np.sort(best_first(rows)[: settings.max_per_image])
    )
    return ThingSelection(table, removed)


def border_shares(masks: np.ndarray) -> np.ndarray:
    """Share of the image's outermost pixels that each mask covers.

    Args:
        masks: (n, H, W) bool.

    Returns:
        (n,) float in 0..1.
    """
    border = np.ones(masks.shape[1:], dtype=bool)
    border[1:-1, 1:-1] = False
    return masks[:, border].mean(axis=1)


def best_first(masks: pa.Table) -> np.ndarray:
    """Row numbers (n,) by falling score; equal scores by rising instance_id."""
    return np.lexsort((masks["instance_id"].to_numpy(), -masks["score"].to_numpy()))


def _distinct(masks: pa.Table, max_overlap_iou: float) -> np.ndarray:
    """Row numbers of one image's masks that overlap no better kept one, rising."""
    if len(masks) < 2:
        return np.arange(len(masks))
    overlaps = mask_iou(decoded := decode_masks(masks), decoded)
    kept: list[int] = []
    for row in best_first(masks):
        if not kept or overlaps[row, kept].max() <= max_overlap_iou:
            kept.append(int(row))
    return np.sort(kept)


def _filter_images(
    masks: pa.Table, choose: Callable[[pa.Table], np.ndarray]
) -> tuple[pa.Table, int]:
    """Keep the rows that `choose` names in each image's table; also say how many went."""
    image_id = masks["image_id"].to_numpy()
    order = np.argsort(image_id, kind="stable")
    starts = np.flatnonzero(np.diff(image_id[order])) + 1
    kept = np.zeros(len(masks), dtype=bool)
    for rows in np.split(order, starts) if len(order) else []:
        kept[rows[choose(masks.take(rows))]] = True
    return masks.filter(pa.array(kept)), int(np.count_nonzero(~kept))
