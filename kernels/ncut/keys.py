"""Keys of an image's patches: centered, or scaled to unit length."""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Shorter keys count as zero vectors, as in CutLER's code.
_SHORTEST_KEY = 1e-12


def center_keys(keys: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Subtract an image's mean key from its keys.

    Keys of small or briefly trained backbones share a large common part that hides the differences
    between patches; official DINO weights do not need this.

    Args:
        keys: (..., d) float, all keys of one image.

    Returns:
        The same shape, float32.
    """
    wide = np.asarray(keys, dtype=np.float64)
    centered: NDArray[np.float32] = (wide - wide.mean(axis=tuple(range(wide.ndim - 1)))).astype(
        np.float32
    )
    return centered


def unit_keys(keys: Any, xp: ModuleType) -> Any:
    """Scale keys to length 1 and leave zero keys as they are: (n, T, d) float32.

    Raises:
        ValueError: A key holds NaN or infinity, or its square overflows float32.
    """
    # float32 as in CutLER's code: cosines near tau must fall on the same side.
    with np.errstate(over="ignore"):
        narrow = xp.asarray(keys).astype(np.float32)
        lengths = xp.sqrt(xp.einsum("ntd,ntd->nt", narrow, narrow))
    if not bool(xp.isfinite(lengths).all()):
        raise ValueError("keys must be finite (and no longer than 1e19), got NaN or infinity")
    return narrow / xp.maximum(lengths, np.float32(_SHORTEST_KEY))[:, :, None]
