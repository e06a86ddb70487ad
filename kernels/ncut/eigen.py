"""The second smallest eigenvector of (D - A) x = lambda D x, by Lanczos steps.

With y = D^1/2 x the problem becomes N y = (1 - lambda) y for N = D^-1/2 A D^-1/2, whose largest
eigenvalue 1 has a known, trivial eigenvector. Lanczos steps on N, kept orthogonal to it, find the
next one in some tens of products with A, where a dense solver needs O(T^3).

Images are solved as a batch, so that a GPU needs one kernel launch for all of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from kernels.backend import to_numpy
from kernels.errors import EigenConvergenceError
from kernels.ncut.affinity import PatchGraphs

MAX_STEPS = 1000
# Tolerance: bound on the angle between computed and true eigenvector (residual over gap), with the
# residual clipped to [floor, ceiling], as the gap is zero where eigenvalues are repeated.
_ANGLE = 1e-9
_RESIDUAL_FLOOR = 1e-13
_RESIDUAL_CEILING = 1e-11
# A larger final residual counts as a failure, whatever the Lanczos bound was.
_RESIDUAL_LIMIT = 1e-10
_STEPS_BETWEEN_CHECKS = 4
# Entries within this share of the largest magnitude below the largest entry tie with it.
_TIE = 1e-6


@dataclass(frozen=True)
class Eigenpairs:
    """Solutions of (D - A) x = lambda D x, one for each of n images.

    Attributes:
        values: (n,) float64 lambda, in [0, 2].
        vectors: (n, T) float64 x on the graphs' device, x^T D x = 1, of arbitrary sign.
        is_dense: (n,) bool, whether the dense solver was used.
    """

    values: NDArray[np.float64]
    vectors: Any
    is_dense: NDArray[np.bool_]


def second_smallest(graphs: PatchGraphs, *, max_steps: int = MAX_STEPS) -> Eigenpairs:
    """Solve for the eigenvectors of normalised cuts (Shi and Malik 2000, eq. 11).

    On one machine a graph gives the same bytes whatever the batch. The vector of a repeated
    eigenvalue is not unique.

    Args:
        graphs: At least two patches an image.
        max_steps: Lanczos steps after which the dense solver takes over.

    Raises:
        EigenConvergenceError: The dense solver failed as well.
    """
    if graphs.adjacency.shape[1] < 2:
        raise ValueError("the graph must have at least two patches, got one")
    values, vectors = _lanczos(graphs, max_steps)
    device_values = graphs.adjacency.xp.asarray(values)[:, None]
    errors = graphs.apply_normalised(vectors) - device_values * vectors
    residuals = to_numpy((errors**2).sum(axis=1) ** 0.5)
    # Negated, so that the NaN of an image without convergence fails too.
    is_dense = ~(residuals <= _RESIDUAL_LIMIT)
    for image in np.flatnonzero(is_dense):
        values[image], vector = _dense(graphs, int(image))
        vectors[int(image)] = graphs.adjacency.xp.asarray(vector)
    return Eigenpairs(1.0 - values, graphs.unscale(vectors), is_dense)


def largest_entry_positive(vectors: Any, xp: Any = np) -> Any:
    """Fix eigenvectors' signs: the entry of largest magnitude, the first of equals, is positive.

    MaskCut's choice of the foreground depends on the sign, which solvers leave open.

    Args:
        vectors: (n, T) float64.
        xp: The array module that they belong to.
    """
    peaks = xp.take_along_axis(vectors, tolerant_argmax(abs(vectors))[:, None], axis=1)
    return xp.where(peaks < 0.0, -vectors, vectors)


def tolerant_argmax(vectors: Any) -> Any:
    """Return the index of each vector's largest entry, the first of ties: (n, T) to (n,).

    Patches with the same neighbours have equal entries, up to rounding that differs from solver to
    solver and must not choose among them.
    """
    scales = abs(vectors).max(axis=1, keepdims=True)
    return (vectors >= vectors.max(axis=1, keepdims=True) - _TIE * scales).argmax(axis=1)


def _lanczos(graphs: PatchGraphs, max_steps: int) -> tuple[NDArray[np.float64], Any]:
    """Find the largest eigenpair of every N that is orthogonal to the trivial eigenvector.

    Returns:
        (n,) values on the host and (n, T) vectors; NaN for images that did not converge.
    """
    xp = graphs.adjacency.xp
    images, patches = graphs.adjacency.shape
    steps = min(max_steps, patches - 1)
    basis = xp.empty((images, steps + 1, patches))
    diagonals, norms = xp.empty((images, steps)), xp.empty((images, steps))
    values = np.full(images, np.nan)
    vectors = xp.full((images, patches), np.nan)
    waiting = list(range(images))

    basis[:, 0] = graphs.trivial
    start = xp.asarray(np.random.default_rng(0).standard_normal(patches))
    vector = _orthogonalised(xp.tile(start, (images, 1)), basis[:, :1])
    vector /= _lengths(vector)
    for step in range(1, steps + 1):
        basis[:, step] = vector
        image_of_vector = graphs.apply_normalised(vector)
        diagonals[:, step - 1] = (vector * image_of_vector).sum(axis=1)
        # Full orthogonalisation, the trivial vector included: no ghost eigenvalues, no drift.
        rest = _orthogonalised(image_of_vector, basis[:, : step + 1])
        length = _lengths(rest)
        norms[:, step - 1] = length[:, 0]
        # An exhausted Krylov space continues with zeros, which `_ritz_pair` does not read.
        vector = xp.where(length > _RESIDUAL_FLOOR, rest / xp.maximum(length, 1e-300), 0.0)
        if step % _STEPS_BETWEEN_CHECKS and step != steps:
            continue
        tridiagonals = to_numpy(diagonals[:, :step]), to_numpy(norms[:, :step])
        for image in tuple(waiting):
            pair = _ritz_pair(tridiagonals[0][image], tridiagonals[1][image], patches - 1)
            if pair is not None:
                values[image], weights = pair
                found = xp.asarray(weights) @ basis[image, 1 : len(weights) + 1]
                vectors[image] = found / xp.linalg.norm(found)
                waiting.remove(image)
        if not waiting:
            break
    return values, vectors


def _lengths(vectors: Any) -> Any:
    return (vectors**2).sum(axis=1, keepdims=True) ** 0.5


def _orthogonalised(vectors: Any, bases: Any) -> Any:
    """Project the basis rows out of every vector; twice, for orthogonality to rounding."""
    for _ in range(2):
        vectors = vectors - (bases.swapaxes(1, 2) @ (bases @ vectors[:, :, None]))[:, :, 0]
    return vectors


def _ritz_pair(
    diagonal: NDArray[np.float64], norms: NDArray[np.float64], dimension: int
) -> tuple[float, NDArray[np.float64]] | None:
    """Return the largest eigenpair of a Lanczos tridiagonal matrix; None before convergence.

    Args:
        diagonal: (steps,).
        norms: (steps,), the off-diagonal, then the factor of the residual.
        dimension: Steps that span the whole space.
    """
    exhausted = np.flatnonzero(norms <= _RESIDUAL_FLOOR)
    size = int(exhausted[0]) + 1 if len(exhausted) else len(diagonal)
    value, gap, weights = _top_of_tridiagonal(diagonal[:size], norms[: size - 1])
    residual = norms[size - 1] * abs(weights[-1])
    is_exhausted = len(exhausted) > 0 or size == dimension
    if is_exhausted or residual <= np.clip(_ANGLE * gap, _RESIDUAL_FLOOR, _RESIDUAL_CEILING):
        return value, weights
    return None


def _top_of_tridiagonal(
    diagonal: NDArray[np.float64], off_diagonal: NDArray[np.float64]
) -> tuple[float, float, NDArray[np.float64]]:
    """Return a tridiagonal matrix's largest eigenvalue, its gap to the next, and its vector."""
    size = len(diagonal)
    if size == 1:
        return float(diagonal[0]), 1.0, np.ones(1)
    values, vectors = scipy.linalg.eigh_tridiagonal(
        diagonal, off_diagonal, select="i", select_range=(size - 2, size - 1)
    )
    return float(values[1]), float(values[1] - values[0]), vectors[:, 1].astype(np.float64)


def _dense(graphs: PatchGraphs, image: int) -> tuple[float, NDArray[np.float64]]:
    """Do `_lanczos` for one image by LAPACK, with the trivial eigenvalue deflated to -1."""
    trivial = to_numpy(graphs.trivial[image])
    matrix = graphs.dense_normalised(image) - 2.0 * np.outer(trivial, trivial)
    last = len(trivial) - 1
    try:
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[last, last])
    except scipy.linalg.LinAlgError as error:
        raise EigenConvergenceError(f"the dense eigensolver failed too: {error}") from error
    return float(values[0]), vectors[:, 0]
