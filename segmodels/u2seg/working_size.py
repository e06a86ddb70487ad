"""The size that an image's labels are merged at, and the way back to the image's own size."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class WorkingSize:
    """Nearest-pixel maps between an image and its working size; no change up to the limit.

    Attributes:
        height, width: of the image, px.
        limit: longest side of the working size, px.
    """

    height: int
    width: int
    limit: int

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Height and width at the working size, px."""
        scale = min(1.0, self.limit / max(self.height, self.width))
        return max(1, round(self.height * scale)), max(1, round(self.width * scale))

    @cached_property
    def sampled(self) -> tuple[Indices, Indices]:
        """Row of the image under each working row, and column under each working column."""
        height, width = self.shape
        return _nearest(height, self.height), _nearest(width, self.width)

    @cached_property
    def repeated(self) -> tuple[Indices, Indices]:
        """Working row of each row of the image, and working column of each column."""
        height, width = self.shape
        return _nearest(self.height, height), _nearest(self.width, width)

    def enlarge(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Enlarge (h, w) or (h, w, c) from the working size to the image's."""
        rows, columns = self.repeated
        if self.shape == (self.height, self.width):
            return pixels
        return np.take(np.take(pixels, columns, axis=1), rows, axis=0)


def _nearest(count: int, source: int) -> Indices:
    """Index below `source` under the centre of each of `count` pixels."""
    return ((np.arange(count) + 0.5) * (source / count)).astype(np.int64)
