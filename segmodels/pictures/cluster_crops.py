"""Crops of the best instances of the largest clusters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segmodels.pictures.overlays import dim_outside
from segmodels.pictures.sheets import Picture, crop


@dataclass(frozen=True)
class ClusterCrops:
    """A cluster: `size` is its number of instances, `pictures` are crops of the best."""

    cluster_id: int
    size: int
    pictures: list[Picture]


def largest_clusters(
    members: pa.Table,
    read_image: Callable[[int], Picture],
    read_mask: Callable[[int], NDArray[np.bool_]],
    *,
    num_clusters: int = 24,
    crops_per_cluster: int = 6,
) -> list[ClusterCrops]:
    """Crop the best instances of the largest clusters.

    Instances are taken by descending score, from different images first; ties are broken by id, so the
    pictures are deterministic.

    Args:
        members: every instance of every cluster: cluster_id, image_id, bbox (x, y, w, h), score.
        read_image: gives the (H, W, 3) uint8 image of an image id; called once per image.
        read_mask: gives the (H, W) bool mask of a row of `members`, whose surroundings are faded.
        num_clusters: number of clusters, largest first.
        crops_per_cluster: number of crops of each.

    Returns:
        The clusters by descending size.
    """
    cluster_of, image_of = (members[name].to_numpy() for name in ("cluster_id", "image_id"))
    scores = members["score"].to_numpy()
    ids, sizes = np.unique(cluster_of, return_counts=True)
    largest = np.lexsort((ids, -sizes))[:num_clusters]
    chosen: list[tuple[int, int]] = []
    for rank, cluster_id in enumerate(ids[largest]):
        rows = np.flatnonzero(cluster_of == cluster_id)
        best = _best(image_of[rows], scores[rows], crops_per_cluster)
        chosen += [(rank, row) for row in rows[best].tolist()]
    pictures: dict[int, Picture] = {}
    image_id, image = -1, np.zeros((1, 1, 3), dtype=np.uint8)
    for row in sorted({row for _, row in chosen}, key=lambda row: int(image_of[row])):
        if image_of[row] != image_id:
            image_id = int(image_of[row])
            image = read_image(image_id)
        shown = dim_outside(image, read_mask(row))
        pictures[row] = _square(shown, members["bbox"][row].as_py())
    return [
        ClusterCrops(
            int(ids[index]), int(sizes[index]), [pictures[row] for at, row in chosen if at == rank]
        )
        for rank, index in enumerate(largest)
    ]


def _best(images: NDArray[np.int64], scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Indices of the best instances: the best of each image first, then the others."""
    ranked = np.lexsort((images, -scores))
    _, first_of_image = np.unique(images[ranked], return_index=True)
    again = np.ones(len(ranked), dtype=bool)
    again[first_of_image] = False
    return ranked[np.argsort(again, kind="stable")][:count]


def _square(image: Picture, box_xywh: Sequence[float]) -> Picture:
    """Crop a square around a box, shifted to lie inside the image, so that tiles are filled."""
    x, y, width, height = box_xywh
    side = min(max(width, height, 8.0) * 1.12, *image.shape[:2])
    left = min(max(x + width / 2 - side / 2, 0.0), image.shape[1] - side)
    top = min(max(y + height / 2 - side / 2, 0.0), image.shape[0] - side)
    return crop(image, (left, top, side, side), margin=0.0)
