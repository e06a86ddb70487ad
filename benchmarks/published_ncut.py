"""The plain reference: one normalised cut as MaskCut's program formulates it, with LAPACK."""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray


def published_eigenpair(
    keys: NDArray[np.float32], painted: NDArray[np.bool_], *, tau: float = 0.15, eps: float = 1e-5
) -> tuple[float, NDArray[np.float64]]:
    """Second smallest solution of (D - A) x = lambda D x by the dense generalised solver.

    Args:
        keys: (T, d) float32.
        painted: (T,) bool, keys that count as zero.
        tau: Affinity threshold.
        eps: Affinity of unconnected patches.

    Returns:
        lambda and x (T,) float64.
    """
    affinity = published_affinity(np.where(painted[:, None], np.float32(0), keys), tau, eps)
    degrees = np.diag(affinity.sum(axis=1))
    values, vectors = scipy.linalg.eigh(degrees - affinity, degrees, subset_by_index=[1, 2])
    return float(values[0]), vectors[:, 0]


def published_affinity(keys: NDArray[np.float32], tau: float, eps: float) -> NDArray[np.float64]:
    """MaskCut's affinity written out: (T, T) float64, 1 where the cosine exceeds tau, else eps."""
    lengths = np.linalg.norm(keys, axis=1, keepdims=True)
    unit = keys / np.maximum(lengths, np.float32(1e-12))
    return np.where(unit @ unit.T > tau, 1.0, eps)
