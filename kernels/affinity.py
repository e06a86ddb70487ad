"""The graph of an image's patches: which keys point the same way.

MaskCut's affinity (CutLER, sec. 3.1) has two values only: 1 where two keys' cosine exceeds
tau, eps elsewhere. It therefore is `eps * ones + (1 - eps) * B` with B of zeros and ones, and
is never written out: B takes one byte an entry, and a product with the affinity costs one
product with B.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.backend import ResolvedBackend, array_module, to_numpy

# Cosines with keys shorter than this are those of a zero vector, as in the reference.
_SHORTEST_KEY = 1e-12


def center_keys(keys: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Subtract an image's mean key from its keys.

    Keys of small or briefly trained backbones share a large common part, which hides what
    sets patches apart; official DINO weights do not need this.

    Args:
        keys: (..., d) float, all keys of one image.

    Returns:
        The same shape, float32.
    """
    wide = np.asarray(keys, dtype=np.float64)
    centred: NDArray[np.float32] = (wide - wide.mean(axis=tuple(range(wide.ndim - 1)))).astype(
        np.float32
    )
    return centred


class PatchGraph:
    """A patch graph with affinity A = eps * ones + (1 - eps) * B, for products with vectors.

    Attributes:
        adjacency: (T, T) bool, B; symmetric; on the backend's device.
        eps: The affinity of patches that are not joined.
        backend: "cpu" or "gpu".
        degrees: (T,) float64 row sums of A, on the backend's device.
    """

    def __init__(self, adjacency: Any, eps: float, backend: ResolvedBackend = "cpu") -> None:
        self.adjacency = adjacency
        self.eps = eps
        self.backend = backend
        self._weights = adjacency if backend == "cpu" else adjacency.astype(np.float64)
        self.degrees = self.apply(array_module(backend).ones(len(adjacency)))
        self._scale = self.degrees**-0.5

    @property
    def trivial(self) -> Any:
        """(T,) float64 unit vector: the normalised affinity's own eigenvector of value 1."""
        roots = self.degrees**0.5
        return roots / (roots @ roots) ** 0.5

    def apply(self, vector: Any) -> Any:
        """A @ vector, for (T,) float64."""
        if self.backend == "cpu":
            joined = np.empty(len(vector))
            _sum_joined(self._weights.view(np.uint8), vector, joined)
        else:
            joined = self._weights @ vector
        return self.eps * vector.sum() + (1.0 - self.eps) * joined

    def apply_normalised(self, vector: Any) -> Any:
        """D^-1/2 A D^-1/2 @ vector, for (T,) float64 and D the diagonal of degrees."""
        return self._scale * self.apply(self._scale * vector)

    def unscale(self, vector: Any) -> Any:
        """D^-1/2 @ vector: from eigenvectors of D^-1/2 A D^-1/2 to those of (D - A) x = l D x."""
        return self._scale * vector

    def dense_normalised(self) -> NDArray[np.float64]:
        """D^-1/2 A D^-1/2 written out on the host: (T, T) float64."""
        scale = to_numpy(self._scale)
        affinity = np.where(to_numpy(self.adjacency), 1.0, self.eps)
        dense: NDArray[np.float64] = scale[:, None] * affinity * scale[None, :]
        return dense


def binary_adjacency(
    keys: NDArray[np.floating[Any]], tau: float, *, backend: ResolvedBackend = "cpu"
) -> Any:
    """Join the patches whose keys' cosine exceeds tau (strictly).

    Args:
        keys: (T, d) float, finite. A zero key has cosine 0 with every key, itself included.
        tau: Cosine in (-1, 1).
        backend: Where to compute and to leave the result.

    Returns:
        (T, T) bool, symmetric, NumPy for "cpu" and CuPy for "gpu".

    Raises:
        ValueError: a key holds NaN or infinity.
    """
    xp = array_module(backend)
    # float32 throughout, as in the reference: patches near tau must fall on the same side.
    with np.errstate(over="ignore"):
        narrow = xp.asarray(keys).astype(np.float32)
        lengths = xp.sqrt(xp.einsum("td,td->t", narrow, narrow))
    if not bool(xp.isfinite(lengths).all()):
        raise ValueError("keys must be finite (and no longer than 1e19), got NaN or infinity")
    unit = narrow / xp.maximum(lengths, _SHORTEST_KEY)[:, None]
    adjacency = (unit @ unit.T) > tau
    if backend == "gpu":
        # NumPy computes one triangle of a Gram matrix and mirrors it; CuPy rounds both.
        adjacency = adjacency | adjacency.T
    return adjacency


def paint(adjacency: Any, painted: NDArray[np.bool_], tau: float) -> Any:
    """The adjacency after the painted patches' keys were set to zero.

    Args:
        adjacency: (T, T) bool.
        painted: (T,) bool.
        tau: The threshold that `adjacency` was made with; zero keys exceed it if it is negative.

    Returns:
        (T, T) bool, a new array.
    """
    repainted = adjacency.copy()
    places = np.flatnonzero(painted)
    repainted[places, :] = tau < 0.0
    repainted[:, places] = tau < 0.0
    return repainted


# Sums may be reassociated: that is what lets them run in vector registers. No other liberty.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _sum_joined(
    adjacency: NDArray[np.uint8], vector: NDArray[np.float64], joined: NDArray[np.float64]
) -> None:
    for row in range(adjacency.shape[0]):
        total = 0.0
        for column in range(adjacency.shape[1]):
            total += adjacency[row, column] * vector[column]
        joined[row] = total
