"""Stuff segments as table rows: one mask for each stuff cluster in an image."""

from typing import Any

import numpy as np
import pyarrow as pa

from segmodels.formats.masks import MASK_SCHEMA, decode_masks, mask_row

STUFF_SCHEMA = MASK_SCHEMA.append(pa.field("cluster_id", pa.int32()))
"""MASK_SCHEMA plus the stuff cluster, from 0."""

_IDS_PER_IMAGE = 1000  # image ids are below 2^53: the product stays below 2^63


def stuff_instance_id(image_id: int, cluster: int) -> int:
    """Id of a stuff segment: unique, and negative, so that it never equals a thing's.

    Raises:
        ValueError: the cluster is not in [0, 1000).
    """
    if not 0 <= cluster < _IDS_PER_IMAGE:
        raise ValueError(f"a stuff cluster must be in [0, {_IDS_PER_IMAGE}), got {cluster}")
    return -(image_id * _IDS_PER_IMAGE + cluster) - 1


def stuff_rows(image_id: int, clusters: np.ndarray) -> list[dict[str, Any]]:
    """Rows of STUFF_SCHEMA for one image, by ascending cluster.

    Args:
        image_id: id in the images table.
        clusters: (H, W) unsigned int from `segment_stuff`.

    Returns:
        One row for each cluster that has a pixel.
    """
    rows = []
    for cluster in np.unique(clusters).tolist():
        row = mask_row(
            image_id,
            stuff_instance_id(image_id, cluster),
            clusters == cluster,
            score=1.0,
            source="stego",
            round=0,
        )
        rows.append({**row, "cluster_id": cluster})
    return rows


def stuff_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of `stuff_rows` as a table of STUFF_SCHEMA."""
    return pa.Table.from_pylist(rows, schema=STUFF_SCHEMA)


def stuff_map(table: pa.Table, height: int, width: int) -> np.ndarray:
    """Stuff cluster of each pixel from the rows of one image: (height, width) int32, -1 for none.

    Raises:
        ValueError: the masks have another size.
    """
    clusters = np.full((height, width), -1, dtype=np.int32)
    if len(table) == 0:
        return clusters
    masks = decode_masks(table)
    if masks.shape[1:] != clusters.shape:
        raise ValueError(
            f"stuff masks must have their image's size {clusters.shape}, got {masks.shape[1:]}"
        )
    for cluster, mask in zip(table["cluster_id"].to_numpy(), masks, strict=True):
        clusters[mask] = cluster
    return clusters
