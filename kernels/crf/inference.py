"""Fully connected CRF over an image's pixels, solved by mean field.

Model and inference: Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with
Gaussian Edge Potentials", NeurIPS 2011. Two Potts terms, one on position, one on position and
colour, each filtered on a permutohedral lattice with the symmetric normalisation D^-1/2 K D^-1/2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import Backend, resolve_backend
from kernels.crf.engines import Engine, Filter, engine_of

_STRIP = 32  # pixels across
_NO_CLASS = -1e30  # score of a lane without a class


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

    The unary is the softmax of (1 - mask, mask): a mask pixel starts with log-odds of 1.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (m, H, W) bool; m may be 0.
        backend: "auto"; "cpu", whose bytes do not depend on the number of Numba threads
            (`numba.set_num_threads`); or "gpu", which differs from it by rounding.

    Returns:
        (m, H, W) bool, before hole filling.

    Raises:
        BackendUnavailableError: backend is "gpu" and there is none.
        ValueError: Shapes or dtypes do not fit.

    Examples:
        A mask three columns too wide shrinks to the edge between two colours:

        >>> import numpy as np
        >>> from kernels.crf import refine_masks
        >>> image = np.zeros((40, 40, 3), np.uint8)
        >>> image[:, :20] = 200, 60, 40
        >>> mask = np.zeros((1, 40, 40), bool)
        >>> mask[0, :, :23] = True
        >>> refined = refine_masks(image, mask, backend="cpu")
        >>> refined.any(axis=(0, 1)).nonzero()[0].max().item()
        19
        >>> refined[0, :, :20].all().item()
        True
    """
    refined: NDArray[np.bool_] = refine_batch(image[None], masks[None], backend=backend)[0]
    return refined


def refine_batch(
    images: NDArray[np.uint8], masks: NDArray[np.bool_], *, backend: Backend = "auto"
) -> NDArray[np.bool_]:
    """Batched `refine_masks`, for images of one size with equally many masks.

    Args:
        images: (n, H, W, 3) uint8 RGB, n at least 1.
        masks: (n, m, H, W) bool; m may be 0.
        backend: See `refine_masks`; a GPU computes the whole batch at once.

    Returns:
        (n, m, H, W) bool, before hole filling.
    """
    resolved = resolve_backend(backend)
    _check_image(images[0])
    if masks.ndim != 4 or len(masks) != len(images) or masks.shape[2:] != images.shape[1:3]:
        height, width = images.shape[1:3]
        raise ValueError(
            f"masks must be (m, {height}, {width}) like the image, got {masks[0].shape}"
        )
    if masks.dtype != np.bool_:
        raise ValueError(f"masks must be bool, got {masks.dtype}")
    if masks.size == 0:
        return np.empty_like(masks)
    engine = engine_of(resolved)
    if resolved == "gpu":
        return _refine(images, masks, engine)
    each = range(len(images))
    return np.concatenate([_refine(images[i : i + 1], masks[i : i + 1], engine) for i in each])


def _refine(
    images: NDArray[np.uint8], masks: NDArray[np.bool_], engine: Engine
) -> NDArray[np.bool_]:
    by_mask = masks.swapaxes(0, 1)
    order = _pixel_order(*masks.shape[2:])
    channels = by_mask.reshape(*by_mask.shape[:2], -1)[:, :, order].reshape(len(by_mask), -1)
    unary = engine.from_channels(np.where(channels, np.float32(1), np.float32(-1)), 0)
    terms = _pairwise_terms(images, MASKCUT_CRF, engine)
    odds = engine.to_channels(
        _iterate(unary, terms, MASKCUT_CRF.steps, engine.tanh_half), len(channels)
    )
    refined = np.empty((*by_mask.shape[:2], len(order)), np.bool_)
    refined[:, :, order] = (odds > 0).reshape(refined.shape)
    return refined.reshape(by_mask.shape).swapaxes(0, 1)


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
        unary: (c, H, W) float, negative log-probabilities up to a constant a pixel; c >= 2.
        settings: Pairwise terms and steps, e.g. STEGO_CRF.
        backend: See `refine_masks`.

    Returns:
        (c, H, W) float32 probabilities, summing to 1 over c.

    Raises:
        BackendUnavailableError: backend is "gpu" and there is none.
        ValueError: Shapes do not fit, or unary is not finite.
    """
    engine = engine_of(resolve_backend(backend))
    _check_image(image)
    if unary.ndim != 3 or unary.shape[1:] != image.shape[:2] or len(unary) < 2:
        raise ValueError(
            f"unary must be (classes >= 2, {image.shape[0]}, {image.shape[1]}) like the image, "
            f"got {unary.shape}"
        )
    if not np.isfinite(unary).all():
        raise ValueError("unary must be finite, got NaN or infinity")
    order = _pixel_order(*unary.shape[1:])
    evidence = engine.from_channels(-unary.reshape(len(unary), -1)[:, order], _NO_CLASS)
    terms = _pairwise_terms(image[None], settings, engine)
    scores = _iterate(evidence, terms, settings.steps, engine.softmax)
    engine.softmax(scores)
    marginals = np.empty((len(unary), len(order)), np.float32)
    marginals[:, order] = engine.to_channels(scores, len(unary))
    return marginals.reshape(unary.shape)


def _iterate(
    unary: Any, terms: list[tuple[Filter, float]], steps: int, marginalise: Callable[[Any], None]
) -> Any:
    """Return the scores after `steps` mean-field updates.

    Two classes need one number a pixel, s = P(mask) - P(rest) = tanh(odds / 2), and the Potts
    message of a term is compat * K s: half the filtering of the general form.
    """
    scores, spare = unary.copy(), unary.copy()
    for _ in range(steps):
        marginalise(scores)
        spare[...] = unary
        for lattice, compat in terms:
            lattice.add_filtered(spare, compat, scores)
        scores, spare = spare, scores
    return scores


def _pairwise_terms(
    images: NDArray[np.uint8], settings: CrfSettings, engine: Engine
) -> list[tuple[Filter, float]]:
    count, height, width = images.shape[:3]
    features = np.empty((5, count, height * width), np.float32)
    features[:2] = _pixel_positions(height, width)[:, None] / np.float32(settings.bilateral_std)
    colours = images.reshape(count, -1, 3)[:, _pixel_order(height, width)]
    features[2:] = colours.transpose(2, 0, 1) / np.float32(settings.colour_std)
    bilateral = engine.build_lattice(features.reshape(5, -1), count)
    smooth = _smooth_lattice(count, height, width, settings.smooth_std, engine)
    return [(smooth, settings.smooth_compat), (bilateral, settings.bilateral_compat)]


@lru_cache(maxsize=2)
def _smooth_lattice(count: int, height: int, width: int, std: float, engine: Engine) -> Filter:
    """Return the position-only lattice, which depends on the images' size only."""
    features = _pixel_positions(height, width) / np.float32(std)
    return engine.build_lattice(np.tile(features, count), count)


@lru_cache(maxsize=2)
def _pixel_order(height: int, width: int) -> NDArray[np.int64]:
    """Return row-major pixel indices in the lattices' order: strips of columns.

    Near pixels share vertices, which stay in the cache along a strip but not along a row.
    """
    return np.argsort(np.arange(height * width) % width // _STRIP, kind="stable")


@lru_cache(maxsize=2)
def _pixel_positions(height: int, width: int) -> NDArray[np.float32]:
    """Return (2, height * width) float32 pixel coordinates x, y in that order."""
    rows, columns = np.divmod(_pixel_order(height, width), width)
    return np.stack([columns, rows]).astype(np.float32)


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
