"""The second smallest eigenvector of (D - A) x = lambda D x, by Lanczos steps.

With y = D^1/2 x the problem becomes N y = (1 - lambda) y for N = D^-1/2 A D^-1/2, whose largest
eigenvalue 1 belongs to a known, trivial vector. Lanczos steps on N, kept orthogonal to that
vector, find the next one in some tens of products with A, where a dense solver needs O(T^3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from kernels.affinity import PatchGraph
from kernels.backend import array_module, to_numpy
from kernels.errors import EigenConvergenceError

MAX_STEPS = 1000
# Asked for: a bound on the angle between computed and true eigenvector (residual over gap) ...
_ANGLE = 1e-9
# ... but never a residual below this, since eigenvalues may be repeated and the gap zero.
_RESIDUAL_FLOOR = 1e-13
# A residual that, measured at the end, exceeds this is a failure whatever the steps promised.
_RESIDUAL_LIMIT = 1e-10
_STEPS_BETWEEN_CHECKS = 4
# Entries this close to the largest count as equal to it, so that rounding picks no signs.
_SIGN_TIE = 1e-6


@dataclass(frozen=True)
class Eigenpair:
    """A solution of (D - A) x = lambda D x.

    Attributes:
        value: lambda, in [0, 2].
        vector: (T,) float64, x, with x^T D x = 1; its sign is whatever the solver gave.
        is_dense: Whether the dense solver had to step in.
    """

    value: float
    vector: NDArray[np.float64]
    is_dense: bool


def second_smallest(graph: PatchGraph, *, max_steps: int = MAX_STEPS) -> Eigenpair:
    """Solve for the vector that a normalised cut is read from (Shi and Malik 2000, eq. 11).

    The same graph gives the same vector on the same machine, bit for bit. Of a repeated
    eigenvalue the vector is one of many.

    Args:
        graph: At least two patches.
        max_steps: Lanczos steps after which the dense solver takes over.

    Raises:
        EigenConvergenceError: the dense solver failed as well.
    """
    if len(graph.degrees) < 2:
        raise ValueError("the graph must have at least two patches, got one")
    xp = array_module(graph.backend)
    try:
        value, vector = _lanczos(graph.apply_normalised, graph.trivial, max_steps, xp)
        is_dense = False
    except EigenConvergenceError:
        value, dense_vector = _dense(graph)
        vector = xp.asarray(dense_vector)
        is_dense = True
    return Eigenpair(1.0 - value, to_numpy(graph.unscale(vector)), is_dense)


def largest_entry_positive(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fix an eigenvector's sign: its entry of largest magnitude, the first of equals, is positive.

    MaskCut's choice of the foreground depends on the sign, which solvers leave open.
    """
    magnitudes = np.abs(vector)
    peak = np.argmax(magnitudes >= magnitudes.max() * (1.0 - _SIGN_TIE))
    return -vector if vector[peak] < 0.0 else vector


def _lanczos(
    apply: Callable[[Any], Any], trivial: Any, max_steps: int, xp: ModuleType
) -> tuple[float, Any]:
    """Largest eigenvalue, and its unit vector, of an operator beyond one known eigenvector."""
    size = len(trivial)
    steps = min(max_steps, size - 1)
    basis = xp.empty((steps + 1, size))
    basis[0] = trivial
    start = xp.asarray(np.random.default_rng(0).standard_normal(size))
    vector = _orthogonalised(start, basis[:1])
    vector /= xp.linalg.norm(vector)
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    for step in range(1, steps + 1):
        basis[step] = vector
        image = apply(vector)
        diagonal.append(float(vector @ image))
        # Full orthogonalisation, the trivial vector included: no ghosts, and no drift back to it.
        image = _orthogonalised(image, basis[: step + 1])
        norm = float(xp.linalg.norm(image))
        is_exhausted = norm <= _RESIDUAL_FLOOR or step == size - 1
        if is_exhausted or step % _STEPS_BETWEEN_CHECKS == 0:
            value, gap, weights = _top_of_tridiagonal(diagonal, off_diagonal)
            residual = norm * abs(weights[-1])
            if is_exhausted or residual <= max(_ANGLE * gap, _RESIDUAL_FLOOR):
                eigenvector = xp.asarray(weights) @ basis[1 : step + 1]
                eigenvector /= xp.linalg.norm(eigenvector)
                _check_residual(float(xp.linalg.norm(apply(eigenvector) - value * eigenvector)))
                return value, eigenvector
        off_diagonal.append(norm)
        vector = image / norm
    raise EigenConvergenceError(f"no eigenvector of {size} patches within {steps} Lanczos steps")


def _orthogonalised(vector: Any, basis: Any) -> Any:
    """Take the span of the basis rows out of a vector; twice, which makes it exact."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector


def _top_of_tridiagonal(
    diagonal: list[float], off_diagonal: list[float]
) -> tuple[float, float, NDArray[np.float64]]:
    """Largest eigenvalue, its distance to the next, and its vector, of a symmetric tridiagonal."""
    size = len(diagonal)
    if size == 1:
        return diagonal[0], 1.0, np.ones(1)
    values, vectors = scipy.linalg.eigh_tridiagonal(
        diagonal, off_diagonal, select="i", select_range=(size - 2, size - 1)
    )
    return float(values[1]), float(values[1] - values[0]), vectors[:, 1].astype(np.float64)


def _check_residual(residual: float) -> None:
    # Written so that a NaN fails.
    if not residual <= _RESIDUAL_LIMIT:
        raise EigenConvergenceError(f"the eigenvector's residual is {residual:.1e}")


def _dense(graph: PatchGraph) -> tuple[float, NDArray[np.float64]]:
    """What `_lanczos` gives, from LAPACK, with the trivial vector's eigenvalue moved to -1."""
    trivial = to_numpy(graph.trivial)
    matrix = graph.dense_normalised() - 2.0 * np.outer(trivial, trivial)
    last = len(trivial) - 1
    try:
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[last, last])
    except scipy.linalg.LinAlgError as error:
        raise EigenConvergenceError(f"the dense eigen-solver failed too: {error}") from error
    return float(values[0]), vectors[:, 0]
