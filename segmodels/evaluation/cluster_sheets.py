"""What a cluster looks like: crops of its best instances."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmodels.evaluation.pictures import Picture, contact_sheet, crop, dim_outside


@dataclass(frozen=True)
class ClusterMember:
    """One instance of a cluster; `read_mask` gives its (H, W) bool mask, or is None for a plain crop."""

    cluster_id: int
    image_id: int
    box_xywh: Sequence[float]
    score: float = 1.0
    read_mask: Callable[[], NDArray[np.bool_]] | None = None


@dataclass(frozen=True)
class ClusterCrops:
    """Crops of one cluster: `size` members in all, `pictures` of the best of them."""

    cluster_id: int
    size: int
    pictures: list[Picture]


def largest_clusters(
    members: Iterable[ClusterMember],
    read_image: Callable[[int], Picture],
    *,
    num_clusters: int = 24,
    crops_per_cluster: int = 6,
) -> list[ClusterCrops]:
    """Cut out the best members of the largest clusters.

    Members are taken by descending score, from different images while there are any; equal sizes and
    scores keep the order of ids, so the same input gives the same pictures.

    Args:
        members: every instance of every cluster.
        read_image: gives the (H, W, 3) uint8 image of an image id; called once an image.
        num_clusters: how many clusters, largest first.
        crops_per_cluster: how many crops of each.

    Returns:
        The clusters by descending size.
    """
    clusters: dict[int, list[ClusterMember]] = {}
    for member in members:
        clusters.setdefault(member.cluster_id, []).append(member)
    largest = sorted(clusters.items(), key=lambda item: (-len(item[1]), item[0]))[:num_clusters]
    chosen = [
        (place, rank, member)
        for place, (_, cluster) in enumerate(largest)
        for rank, member in enumerate(_best(cluster, crops_per_cluster))
    ]
    cut: dict[tuple[int, int], Picture] = {}
    image_id, image = -1, np.zeros((1, 1, 3), dtype=np.uint8)
    for place, rank, member in sorted(chosen, key=lambda item: item[2].image_id):
        if member.image_id != image_id:
            image_id, image = member.image_id, read_image(member.image_id)
        shown = image if member.read_mask is None else dim_outside(image, member.read_mask())
        cut[place, rank] = _square(shown, member.box_xywh)
    return [
        ClusterCrops(cluster_id, len(cluster), [cut[key] for key in sorted(cut) if key[0] == place])
        for place, (cluster_id, cluster) in enumerate(largest)
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


def _best(cluster: list[ClusterMember], count: int) -> list[ClusterMember]:
    ranked = sorted(cluster, key=lambda member: (-member.score, member.image_id))
    seen: set[int] = set()
    first: list[ClusterMember] = []
    again: list[ClusterMember] = []
    for member in ranked:
        (again if member.image_id in seen else first).append(member)
        seen.add(member.image_id)
    return [*first, *again][:count]


def _square(image: Picture, box_xywh: Sequence[float]) -> Picture:
    """Cut a square around a box, so that tiles fill evenly; shifted to lie inside the image."""
    x, y, width, height = box_xywh
    side = min(max(width, height, 8.0) * 1.12, *image.shape[:2])
    left = min(max(x + width / 2 - side / 2, 0.0), image.shape[1] - side)
    top = min(max(y + height / 2 - side / 2, 0.0), image.shape[0] - side)
    return crop(image, (left, top, side, side), margin=0.0)
