"""What a cluster looks like: crops of its best instances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segmodels.pictures.overlays import Picture, contact_sheet, crop, dim_outside


@dataclass(frozen=True)
class ClusterCrops:
    """Crops of one cluster: `size` members in all, `pictures` of the best of them."""

    cluster_id: int
    size: int
    pictures: list[Picture]


def largest_clusters(
    members: pa.Table,
    read_image: Callable[[int], Picture],
    read_mask: Callable[[int], NDArray[np.bool_]] | None = None,
    *,
    num_clusters: int = 24,
    crops_per_cluster: int = 6,
) -> list[ClusterCrops]:
    """Cut out the best members of the largest clusters.

    Members are taken by descending score, from different images while there are any; equal sizes and
    scores keep the order of ids, so the same input gives the same pictures.

    Args:
        members: every instance of every cluster: cluster_id, image_id, bbox (x, y, w, h), score.
        read_image: gives the (H, W, 3) uint8 image of an image id; called once an image.
        read_mask: gives the (H, W) bool mask of a row, to fade what is around; None for plain crops.
        num_clusters: how many clusters, largest first.
        crops_per_cluster: how many crops of each.

    Returns:
        The clusters by descending size.
    """
    cluster_of, image_of = (members[name].to_numpy() for name in ("cluster_id", "image_id"))
    scores = members["score"].to_numpy()
    ids, sizes = np.unique(cluster_of, return_counts=True)
    largest = np.lexsort((ids, -sizes))[:num_clusters]
    chosen: list[tuple[int, int]] = []
    for place, cluster_id in enumerate(ids[largest]):
        rows = np.flatnonzero(cluster_of == cluster_id)
        best = _best(image_of[rows], scores[rows], crops_per_cluster)
        chosen += [(place, row) for row in rows[best].tolist()]
    pictures: dict[int, Picture] = {}
    image_id, image = -1, np.zeros((1, 1, 3), dtype=np.uint8)
    for row in sorted({row for _, row in chosen}, key=lambda row: int(image_of[row])):
        if image_of[row] != image_id:
            image_id = int(image_of[row])
            image = read_image(image_id)
        shown = image if read_mask is None else dim_outside(image, read_mask(row))
        pictures[row] = _square(shown, members["bbox"][row].as_py())
    return [
        ClusterCrops(
            int(ids[index]), int(sizes[index]), [pictures[row] for at, row in chosen if at == place]
        )
        for place, index in enumerate(largest)
    ]


def cluster_sheets(clusters: Sequence[ClusterCrops], *, tile: int = 72) -> Picture:
    """Lay clusters out as one sheet, a row each, captioned with number and size.

    Returns:
        (height, width, 3) uint8; a blank tile when there is no cluster.
    """
    columns = max((len(cluster.pictures) for cluster in clusters), default=1)
    blank = np.full((tile, tile, 3), 255, dtype=np.uint8)
    pictures, captions = [], []
    for cluster in clusters:
        missing = columns - len(cluster.pictures)
        pictures += [*cluster.pictures, *[blank] * missing]
        captions += [f"#{cluster.cluster_id}", f"n={cluster.size}", *[""] * columns][:columns]
    return contact_sheet(pictures, captions, columns=columns, tile=tile)


def _best(images: NDArray[np.int64], scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Positions of the best members: the best of each image first, then what is left."""
    ranked = np.lexsort((images, -scores))
    _, first_of_image = np.unique(images[ranked], return_index=True)
    again = np.ones(len(ranked), dtype=bool)
    again[first_of_image] = False
    return ranked[np.argsort(again, kind="stable")][:count]


def _square(image: Picture, box_xywh: Sequence[float]) -> Picture:
    """Cut a square around a box, so that tiles fill evenly; shifted to lie inside the image."""
    x, y, width, height = box_xywh
    side = min(max(width, height, 8.0) * 1.12, *image.shape[:2])
    left = min(max(x + width / 2 - side / 2, 0.0), image.shape[1] - side)
    top = min(max(y + height / 2 - side / 2, 0.0), image.shape[0] - side)
    return crop(image, (left, top, side, side), margin=0.0)
