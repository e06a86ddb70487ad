"""CPU: from scores to marginals in compiled loops over rows of LANES float32.

The exponential is a polynomial of single operations, which compile to vector instructions and give
the same bytes on every processor.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_BLOCK = 1024  # numbers whose temporaries stay in the first-level cache
_LOWEST_POWER = np.float32(-60)  # negligible beside 1, yet its products are not subnormal


@njit(cache=True, nogil=True)
def _exponential(power: np.float32) -> np.float32:
    """Return e^power for power <= 0, to 1e-7 relative: 2^whole times a fitted Taylor series."""
    power = max(power, _LOWEST_POWER)
    whole = np.floor(power * np.float32(1.44269504) + np.float32(0.5))
    # ln 2 in two pieces, the first one short enough that its product with `whole` is exact.
    rest = power - whole * np.float32(0.693359375)
    rest -= whole * np.float32(-2.12194440e-4)
    series = np.float32(1.9875691e-4)
    series = series * rest + np.float32(1.3981999e-3)
    series = series * rest + np.float32(8.3334519e-3)
    series = series * rest + np.float32(4.1665796e-2)
    series = series * rest + np.float32(1.6666667e-1)
    series = series * rest + np.float32(0.5)
    series = series * rest * rest + rest + np.float32(1)
    exponent = (np.int32(whole) + np.int32(127)) << np.int32(23)
    return np.float32(series * np.int32(exponent).view(np.float32))


@njit(cache=True, nogil=True, error_model="numpy")
def _tanh_half(odds: Floats) -> None:
    for index in range(odds.shape[0]):
        value = odds[index]
        small = _exponential(-abs(value))
        spin = (np.float32(1) - small) / (np.float32(1) + small)
        odds[index] = spin if value >= 0 else -spin


@njit(cache=True, nogil=True, parallel=True)
def _tanh_half_in_parallel(odds: Floats, parts: int) -> None:
    size = odds.shape[0]
    for part in prange(parts):
        _tanh_half(odds[size * part // parts : size * (part + 1) // parts])


def tanh_half(odds: Floats, parts: int) -> None:
    """Replace log-odds by P(mask) - P(rest) = tanh(odds / 2), an exactly odd function.

    Args:
        odds: (n,) float32.
        parts: Threads; the bytes written do not depend on them.
    """
    if parts == 1:
        _tanh_half(odds)
    else:
        _tanh_half_in_parallel(odds, parts)


@njit(cache=True, nogil=True, error_model="numpy")
def _softmax(scores: Floats, start: np.int64 | int, stop: np.int64 | int) -> None:
    """Apply the softmax to pixels start..stop - 1, at most _BLOCK numbers a group."""
    groups, _, lanes = scores.shape
    pixels = stop - start
    peaks = np.full(_BLOCK, -np.inf, np.float32)
    sums = np.zeros(_BLOCK, np.float32)
    for group in range(groups):
        rows = scores[group, start:stop].reshape(-1)
        for index in range(rows.shape[0]):
            peaks[index] = max(peaks[index], rows[index])
    for first in range(0, pixels * lanes, lanes):
        peak = peaks[first]
        for lane in range(1, lanes):
            peak = max(peak, peaks[first + lane])
        for lane in range(lanes):
            peaks[first + lane] = peak
    for group in range(groups):
        rows = scores[group, start:stop].reshape(-1)
        for index in range(rows.shape[0]):
            rows[index] = _exponential(rows[index] - peaks[index])
            sums[index] += rows[index]
    for first in range(0, pixels * lanes, lanes):
        total = np.float32(0)
        for lane in range(lanes):
            total += sums[first + lane]
        for lane in range(lanes):
            sums[first + lane] = np.float32(1) / total
    for group in range(groups):
        rows = scores[group, start:stop].reshape(-1)
        for index in range(rows.shape[0]):
            rows[index] *= sums[index]


@njit(cache=True, nogil=True)
def _softmax_blocks(scores: Floats, first: np.int64 | int, last: np.int64 | int) -> None:
    _, pixels, lanes = scores.shape
    step = _BLOCK // lanes
    for block in range(first, last):
        _softmax(scores, block * step, min(pixels, (block + 1) * step))


@njit(cache=True, nogil=True, parallel=True)
def _softmax_in_parallel(scores: Floats, blocks: int, parts: int) -> None:
    for thread in prange(parts):
        part = np.int64(thread)
        _softmax_blocks(scores, blocks * part // parts, blocks * (part + 1) // parts)


def softmax(scores: Floats, parts: int) -> None:
    """Replace scores by probabilities, clipped below at e^-60 of the largest.

    Args:
        scores: (groups, pixels, lanes) float32; a pixel's classes are its groups' lanes.
        parts: Threads; the bytes written do not depend on them.
    """
    _, pixels, lanes = scores.shape
    blocks = -(-pixels // (_BLOCK // lanes))
    if parts == 1:
        _softmax_blocks(scores, 0, blocks)
    else:
        _softmax_in_parallel(scores, blocks, parts)
