"""The graph of an image's patches: which keys point the same way.

MaskCut's affinity (CutLER, sec. 3.1) has two values only: 1 where two keys' cosine exceeds
tau, eps elsewhere. It therefore is `eps * ones + (1 - eps) * B` with B of zeros and ones, and
is never written out: a product with the affinity costs one product with B. Painting patches, i.e.
setting their keys to zero, does not change B either: it masks the product's two sides.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import to_numpy
from kernels.ncut.adjacency import Adjacency


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


class PatchGraphs:
    """Patch graphs of n images, each with affinity A = eps * ones + (1 - eps) * B.

    Vectors are (n, T) float64, one row an image, on the adjacency's device.

    Attributes:
        adjacency: B of every image, as if nothing was painted.
        eps: The affinity of patches that are not joined.
        degrees: (n, T) row sums of A.
    """

    def __init__(
        self,
        adjacency: Adjacency,
        eps: float,
        *,
        painted: Any = None,
        painted_joined: bool = False,
    ) -> None:
        """Describe the graphs.

        Args:
            adjacency: Who is joined to whom.
            eps: Affinity of patches that are not joined.
            painted: (n, T) bool, patches whose keys count as zero; None for none.
            painted_joined: Whether zero keys are joined to all others: where tau is negative.
        """
        xp = adjacency.xp
        self.adjacency = adjacency
        self.eps = eps
        self._unpainted = None if painted is None else (~painted).astype(np.float64)
        self._painted_joined = painted_joined
        self.degrees = self.apply(xp.ones(adjacency.shape))
        self._scale = self.degrees**-0.5

    @property
    def trivial(self) -> Any:
        """(n, T) unit vectors: each normalised affinity's own eigenvector of value 1."""
        roots = self.degrees**0.5
        return roots / (roots**2).sum(axis=1, keepdims=True) ** 0.5

    def apply(self, vectors: Any) -> Any:
        """A @ vector of every image."""
        total = vectors.sum(axis=1, keepdims=True)
        if self._unpainted is None:
            joined = self.adjacency.sum_joined(vectors)
        else:
            kept = self._unpainted * vectors
            joined = self._unpainted * self.adjacency.sum_joined(kept)
            if self._painted_joined:
                joined += total - self._unpainted * kept.sum(axis=1, keepdims=True)
        return self.eps * total + (1.0 - self.eps) * joined

    def apply_normalised(self, vectors: Any) -> Any:
        """D^-1/2 A D^-1/2 @ vector of every image, D the diagonal of its degrees."""
        return self._scale * self.apply(self._scale * vectors)

    def unscale(self, vectors: Any) -> Any:
        """D^-1/2 @ vector: from eigenvectors of D^-1/2 A D^-1/2 to those of (D - A) x = l D x."""
        return self._scale * vectors

    def dense_affinity(self, image: int) -> NDArray[np.float64]:
        """A of one image written out on the host: (T, T) float64."""
        joined = self.adjacency.dense(image)
        if self._unpainted is not None:
            painted = to_numpy(self._unpainted[image]) == 0.0
            joined[painted, :] = self._painted_joined
            joined[:, painted] = self._painted_joined
        return np.where(joined, 1.0, self.eps)

    def dense_normalised(self, image: int) -> NDArray[np.float64]:
        """D^-1/2 A D^-1/2 of one image written out on the host: (T, T) float64."""
        scale = to_numpy(self._scale[image])
        dense: NDArray[np.float64] = scale[:, None] * self.dense_affinity(image) * scale[None, :]
        return dense
