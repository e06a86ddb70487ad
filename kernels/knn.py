"""Exact nearest neighbours by cosine similarity."""

import numpy as np
from numpy.typing import NDArray

from kernels.errors import TooFewPointsError


def nearest_neighbours(features: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Return each row's k most similar other rows, most similar first.

    Args:
        features: (n, d) float, finite, of any norm; a zero row has similarity 0 to all.
        k: Neighbours per row, in [1, n - 1].

    Returns:
        (n, k) int64 row indices; of equally similar rows the lower index comes first.

    Raises:
        TooFewPointsError: There are k rows or fewer.
        ValueError: k is below 1, or features are not a finite matrix.
    """
    import faiss

    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"features must be (n, d) with d >= 1, got {features.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    rows = len(features)
    if rows <= k:
        raise TooFewPointsError(f"{k} neighbours need at least {k + 1} rows, got {rows}")
    if not np.isfinite(features).all():
        raise ValueError("features must be finite, got NaN or infinity")

    unit = features.astype(np.float32)
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= np.where(lengths == 0, 1, lengths)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    similarity, neighbours = index.search(unit, k + 1)

    own = np.arange(rows)[:, None]
    # A row with k or more duplicates may be missing from its own list: drop the last then.
    similarity = np.where(neighbours == own, -np.inf, similarity)
    drop = np.where((neighbours == own).any(axis=1), (neighbours == own).argmax(axis=1), k)
    keep = np.arange(k + 1) != drop[:, None]
    similarity = similarity[keep].reshape(rows, k)
    neighbours = neighbours[keep].reshape(rows, k)
    order = np.lexsort((neighbours, -similarity), axis=1)
    return np.take_along_axis(neighbours, order, axis=1).astype(np.int64)
