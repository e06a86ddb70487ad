"""Select the masks that become things (U2Seg sec. 3.2).

U2Seg publishes neither the score threshold nor the size limits of the masks that it clusters. The
filters are ours, and the masks that each discards are counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from kernels import rle
from segmodels.formats.arrow import column_values, read_table, rows_in, write_table
from segmodels.formats.masks import decode_masks, one_size

Choose = Callable[[pa.Table], np.ndarray]
"""From the masks of one image to the row numbers of those that are kept."""


@dataclass(frozen=True)
class ThingMaskSettings:
    """Filters, applied in this order.

    Attributes:
        min_score: discard masks with a lower score.
        min_area_share: discard masks that cover less than this share of the image.
        max_area_share: discard masks that cover more; they are background.
        max_border_share: discard masks that cover more than this share of the image's border
            pixels; they are mostly background. 1 keeps all.
        max_overlap_iou: discard a mask whose IoU with one of higher score is above this.
        max_per_image: keep this many masks of highest score per image.
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
    """Kept masks, and the number that each filter discarded.

    Attributes:
        table: the kept rows, in their order.
        removed: discarded masks by the setting's name.
    """

    table: pa.Table
    removed: dict[str, int]


def select_things(masks: pa.Table, settings: ThingMaskSettings) -> ThingSelection:
    """Apply the filters.

    Args:
        masks: MASK_SCHEMA rows of any number of images. Equal scores rank by instance_id.
        settings: the filters.
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
    masks = masks.filter(pa.array(kept))
    for name, choose in _image_filters(settings).items():
        masks, removed[name] = _filter_images(masks, choose)
    return ThingSelection(masks, removed)


def _image_filters(settings: ThingMaskSettings) -> dict[str, Choose]:
    """Filters that see all masks of an image; one that keeps everything reads no mask."""

    def keep_all(masks: pa.Table) -> np.ndarray:
        return np.arange(len(masks))

    def inside(masks: pa.Table) -> np.ndarray:
        return np.flatnonzero(border_shares(decode_masks(masks)) <= settings.max_border_share)

    def distinct(masks: pa.Table) -> np.ndarray:
        return _distinct(masks, settings.max_overlap_iou)

    def best(masks: pa.Table) -> np.ndarray:
        return np.sort(best_first(masks)[: settings.max_per_image])

    return {
        "max_border_share": inside if settings.max_border_share < 1 else keep_all,
        "max_overlap_iou": distinct if settings.max_overlap_iou < 1 else keep_all,
        "max_per_image": best,
    }


def border_shares(masks: np.ndarray) -> np.ndarray:
    """Share of the image's border pixels that each mask covers.

    Args:
        masks: (n, H, W) bool.

    Returns:
        (n,) float in 0..1.
    """
    border = np.ones(masks.shape[1:], dtype=bool)
    border[1:-1, 1:-1] = False
    shares: np.ndarray = masks[:, border].mean(axis=1)
    return shares


def best_first(masks: pa.Table) -> np.ndarray:
    """Row numbers (n,) by falling score; equal scores by rising instance_id."""
    return np.lexsort((masks["instance_id"].to_numpy(), -masks["score"].to_numpy()))


def _distinct(masks: pa.Table, max_overlap_iou: float) -> np.ndarray:
    """Greedy non-maximum suppression by mask IoU: kept row numbers of one image, rising."""
    if len(masks) < 2:
        return np.arange(len(masks))
    overlaps = rle.iou(column_values(masks, "rle_counts"), *one_size(masks))
    kept: list[int] = []
    for row in best_first(masks):
        if not kept or overlaps[row, kept].max() <= max_overlap_iou:
            kept.append(int(row))
    return np.sort(kept)


def _filter_images(masks: pa.Table, choose: Choose) -> tuple[pa.Table, int]:
    """Keep the row numbers that `choose` returns for each image's table; count the discarded."""
    image_id = masks["image_id"].to_numpy()
    # One reordering for all images: taking rows image by image would walk all chunks each time.
    order = np.argsort(image_id, kind="stable")
    by_image = masks.take(order).combine_chunks()
    bounds = [0, *(np.flatnonzero(np.diff(image_id[order])) + 1), len(order)]
    kept = np.zeros(len(masks), dtype=bool)
    for start, stop in pairwise(bounds) if len(order) else []:
        kept[order[start + choose(by_image.slice(start, stop - start))]] = True
    return masks.filter(pa.array(kept)), int(np.count_nonzero(~kept))


@dataclass(frozen=True)
class ThingMaskShard:
    """Arguments of a thing_masks shard.

    Attributes:
        image_ids: the training images of the shard.
        masks_file: MASK_SCHEMA rows of its images.
        settings: the filters.
    """

    image_ids: list[int]
    masks_file: Path
    settings: ThingMaskSettings


def thing_mask_shard(work: ThingMaskShard, folder: Path) -> dict[str, float]:
    """Write `masks.arrow` (MASK_SCHEMA) of one shard; returns kept masks, and removed by filter."""
    masks = rows_in(read_table(work.masks_file), "image_id", work.image_ids)
    selection = select_things(masks, work.settings)
    write_table(selection.table, folder / "masks.arrow")
    return {"masks": selection.table.num_rows, **selection.removed}
