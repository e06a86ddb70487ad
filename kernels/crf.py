"""Fully connected CRF over an image's pixels, solved by mean field.

Model and inference: Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with
Gaussian Edge Potentials", NeurIPS 2011. Two Potts terms, one on position, one on position and
colour, each filtered on a permutohedral lattice with the symmetric normalisation D^-1/2 K D^-1/2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from kernels.backend import Backend
from kernels.crf_marginals import softmax, tanh_half
from kernels.errors import BackendUnavailableError
from kernels.permutohedral import (
    Lattice,
    build_lattice,
    from_lanes,
    in_lanes,
    normalise_symmetrically,
)

_NEVER = -1e30  # score of a lane without a class


@dataclass(frozen=True)
class CrfSettings:
    """Constants of the two pairwise terms and the number of mean-field steps.

    Attributes:
        smooth_std: Standard deviation of the position-only term, in pixels.
        smooth_compat: Potts weight of that term.
        bilateral_std: Position standard deviation of the bilateral term, in pixels.
        colour_std: Colour standard deviation of the bilateral term, in 8-bit levels.
        bilateral_compat: Potts weight of the bilateral term.
        steps: Mean-field updates, at least 1.
    """

    smooth_std: float
    smooth_compat: float
    bilateral_std: float
    colour_std: float
    bilateral_compat: float
    steps: int = 10

    def __post_init__(self) -> None:
        for name in ("smooth_std", "bilateral_std", "colour_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


MASKCUT_CRF = CrfSettings(3, 7, 50, 5, 10)
"""MaskCut's constants (CutLER, section 3.1 and its code), at 480 x 480."""

STEGO_CRF = CrfSettings(1, 3, 67, 3, 4)
"""STEGO's constants (Hamilton et al. 2022, its code), at 320 x 320."""


def refine_masks(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], *, backend: Backend = "auto"
) -> NDArray[np.bool_]:
    """Refine each mask by a two-class dense CRF with MaskCut's constants.

    The unary is the softmax of (1 - mask, mask), so a mask pixel starts with a log-odds of only 1.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (m, H, W) bool; m may be 0.
        backend: "auto" and "cpu" are the same here: the lattice has no GPU version.

    Returns:
        (m, H, W) bool, before hole filling.

    Raises:
        BackendUnavailableError: The GPU was asked for by name.
    """
    _refuse_gpu(backend)
    _check_image(image)
    if masks.ndim != 3 or masks.shape[1:] != image.shape[:2]:
        raise ValueError(
            f"masks must be (m, {image.shape[0]}, {image.shape[1]}) like the image, "
            f"got {masks.shape}"
        )
    if masks.dtype != np.bool_:
        raise ValueError(f"masks must be bool, got {masks.dtype}")
    if len(masks) == 0:
        return np.empty_like(masks)
    log_odds = np.where(masks.reshape(len(masks), -1), np.float32(1), np.float32(-1))
    solved = _iterate(
        in_lanes(log_odds), _pairwise_terms(image, MASKCUT_CRF), MASKCUT_CRF.steps, _spins
    )
    return (from_lanes(solved, len(masks)) > 0).reshape(masks.shape)


def mean_field(
    image: NDArray[np.uint8],
    unary: NDArray[np.floating],
    settings: CrfSettings,
    *,
    backend: Backend = "auto",
) -> NDArray[np.float32]:
    """Return the mean-field marginals of a dense CRF with any number of classes.

    Args:
        image: (H, W, 3) uint8 RGB.
        unary: (c, H, W) float, negative log-probabilities up to a constant per pixel; c >= 2.
        settings: Pairwise constants, for example STEGO_CRF.
        backend: "auto" and "cpu" are the same here: the lattice has no GPU version.

    Returns:
        (c, H, W) float32 probabilities, summing to 1 over c.

    Raises:
        BackendUnavailableError: The GPU was asked for by name.
    """
    _refuse_gpu(backend)
    _check_image(image)
    if unary.ndim != 3 or unary.shape[1:] != image.shape[:2] or len(unary) < 2:
        raise ValueError(
            f"unary must be (classes >= 2, {image.shape[0]}, {image.shape[1]}) like the image, "
            f"got {unary.shape}"
        )
    if not np.isfinite(unary).all():
        raise ValueError("unary must be finite, got NaN or infinity")
    evidence = in_lanes(-unary.reshape(len(unary), -1), padding=_NEVER)
    scores = _iterate(evidence, _pairwise_terms(image, settings), settings.steps, _marginals)
    _marginals(scores)
    return from_lanes(scores, len(unary)).reshape(unary.shape)


def _iterate(
    unary: NDArray[np.float32],
    terms: list[tuple[Lattice, float]],
    steps: int,
    marginalise: Callable[[NDArray[np.float32]], None],
) -> NDArray[np.float32]:
    """Return the scores after so many mean-field updates; `marginalise` works in place."""
    scores, spare = unary.copy(), np.empty_like(unary)
    for _ in range(steps):
        marginalise(scores)
        np.copyto(spare, unary)
        for lattice, compat in terms:
            lattice.add_filtered(spare, compat, scores)
        scores, spare = spare, scores
    return scores


def _spins(odds: NDArray[np.float32]) -> None:
    """Turn the log-odds of two-class problems, one a lane, into P(mask) - P(rest), in place.

    With two classes, mean field needs this one number a pixel, s = tanh(odds / 2), and the Potts
    message of a term is compat * K s. It halves the filtering of the general form.
    """
    tanh_half(odds.reshape(-1), get_num_threads())


def _marginals(scores: NDArray[np.float32]) -> None:
    """Turn the scores of one problem's classes into probabilities, in place."""
    softmax(scores, get_num_threads())


def _pairwise_terms(image: NDArray[np.uint8], settings: CrfSettings) -> list[tuple[Lattice, float]]:
    height, width = image.shape[:2]
    features = np.empty((5, height * width), np.float32)
    features[:2] = _pixel_positions(height, width) / np.float32(settings.bilateral_std)
    features[2:] = image.reshape(-1, 3).T / np.float32(settings.colour_std)
    bilateral = normalise_symmetrically(build_lattice(features.T))
    smooth = _smooth_lattice(height, width, settings.smooth_std)
    return [(smooth, settings.smooth_compat), (bilateral, settings.bilateral_compat)]


@lru_cache(maxsize=1)
def _smooth_lattice(height: int, width: int, std: float) -> Lattice:
    """Return the position-only lattice, which depends on the image's size alone."""
    features = _pixel_positions(height, width) / np.float32(std)
    return normalise_symmetrically(build_lattice(features.T))


def _pixel_positions(height: int, width: int) -> NDArray[np.float32]:
    """Return (2, height * width) float32 pixel coordinates x, y in row-major order."""
    rows, columns = np.divmod(np.arange(height * width, dtype=np.int64), width)
    return np.stack([columns, rows]).astype(np.float32)


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")


def _refuse_gpu(backend: Backend) -> None:
    if backend not in {"auto", "cpu", "gpu"}:
        raise ValueError(f'backend must be "auto", "cpu" or "gpu", got {backend!r}')
    if backend == "gpu":
        raise BackendUnavailableError(
            'The dense CRF has no GPU version: use backend="auto" or "cpu" for it.'
        )
