"""Stuff segments as table rows: one mask for each cluster that an image shows."""

from typing import Any

import numpy as np
import pyarrow as pa

from segmodels.formats.masks import MASK_SCHEMA, decode_masks, mask_row

STUFF_SCHEMA = MASK_SCHEMA.append(pa.field("cluster_id", pa.int32()))
"""The mask schema plus the stuff cluster, 0-based."""

_IDS_PER_IMAGE = 1000  # image ids are below 2^53, so that the product stays below 2^63


def stuff_instance_id(image_id: int, cluster: int) -> int:
    """Id of a stuff segment: unique, and negative, so that it never equals a thing's."""
    if not 0 <= cluster < _IDS_PER_IMAGE:
        raise ValueError(f"a stuff cluster must be in [0, {_IDS_PER_IMAGE}), got {cluster}")
    return -(image_id * _IDS_PER_IMAGE + cluster) - 1


def stuff_rows(image_id: int, clusters: np.ndarray) -> list[dict[str, Any]]:
    """Rows of STUFF_SCHEMA for one image, by rising cluster.

    Args:
        image_id: of the images table.
        clusters: (H, W) unsigned int from `segment_stuff`.

    Returns:
        One row a cluster that has a pixel.
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
    """Cluster of each pixel from one image's rows: (height, width) int32, -1 without stuff.

    Raises:
        ValueError: the rows are of another size.
    """
    clusters = np.full((height, width), -1, dtype=np.int32)
    if len(table) == 0:
        return clusters
    masks = decode_masks(table)
    if masks.shape[1:] != clusters.shape:
        raise ValueError(f"stuff masks {masks.shape[1:]} are not of their image's {clusters.shape}")
    for cluster, mask in zip(table["cluster_id"].to_pylist(), masks, strict=True):
        clusters[mask] = cluster
    return clusters
