"""Overlaps of segments with classes in place of clusters."""

import numpy as np
from numpy.typing import NDArray

from segmodels.evaluation.naming.cluster_mapping import ClusterMapping


def name_overlaps(
    pixels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    mapping: ClusterMapping,
    *,
    num_thing_classes: int,
    merge_stuff: bool,
) -> tuple[NDArray[np.int64], list[int]]:
    """Give the predicted segments of one image classes.

    Args:
        pixels: (1 + n, 1 + m) pixels that n true and m predicted segments share; row 0 and column 0
            are void.
        clusters: (m,) cluster of each predicted segment, 1..K for things, K+1..K+S for stuff.
        mapping: classes of the clusters.
        num_thing_classes: C; thing classes become 0..C-1, stuff classes C onward.
        merge_stuff: whether stuff segments of one class become one segment.

    Returns:
        (1 + n, 1 + p) pixels, segments of clusters without a class being void; and the p classes.
    """
    stuff = np.where(mapping.stuff >= 0, mapping.stuff + num_thing_classes, -1)
    named = np.concatenate([mapping.things, stuff])[clusters - 1]
    classes: list[int] = []
    first_of_stuff: dict[int, int] = {}
    columns = np.zeros(1 + len(clusters), dtype=np.int64)
    for index, class_number in enumerate(named.tolist(), start=1):
        if class_number < 0:
            continue
        if merge_stuff and class_number in first_of_stuff:
            columns[index] = first_of_stuff[class_number]
            continue
        classes.append(class_number)
        columns[index] = len(classes)
        if class_number >= num_thing_classes:
            first_of_stuff[class_number] = len(classes)
    renamed = np.zeros((len(pixels), 1 + len(classes)), dtype=np.int64)
    np.add.at(renamed.T, columns, pixels.T)
    return renamed, classes
