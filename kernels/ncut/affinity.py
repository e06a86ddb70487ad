"""The affinity of an image's patches, as an operator.

MaskCut's affinity (CutLER, sec. 3.1) has two values: 1 where the cosine of two keys exceeds tau,
eps elsewhere. It is `eps * ones + (1 - eps) * B` with B of zeros and ones, and is never written
out: a product with it costs one product with B. Painting patches (setting their keys to zero) does
not change B either: it masks the product's input and output.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import to_numpy
from kernels.ncut.adjacency import Adjacency


class PatchGraphs:
    """Patch graphs of n images, each with affinity A = eps * ones + (1 - eps) * B.

    Vectors are (n, T) float64, one row an image, on the adjacency's device.

    Attributes:
        adjacency: B of every image, without painting.
        eps: Affinity of unconnected patches.
        degrees: (n, T) row sums of A.
    """

    def __init__(
        self,
        adjacency: Adjacency,
        eps: float,
        *,
        painted: Any = None,
        painted_connected: bool = False,
    ) -> None:
        """Build the operator.

        Args:
            adjacency: B of every image.
            eps: Affinity of unconnected patches.
            painted: (n, T) bool, patches whose keys count as zero; None for none.
            painted_connected: Whether zero keys are connected to all, as with a negative tau.
        """
        xp = adjacency.xp
        self.adjacency = adjacency
        self.eps = eps
        self._unpainted = None if painted is None else (~painted).astype(np.float64)
        self._painted_connected = painted_connected
        self.degrees = self.apply(xp.ones(adjacency.shape))
        self._scale = self.degrees**-0.5

    @property
    def trivial(self) -> Any:
        """(n, T) unit eigenvectors of eigenvalue 1, known in closed form: D^1/2 @ ones."""
        roots = self.degrees**0.5
        return roots / (roots**2).sum(axis=1, keepdims=True) ** 0.5

    def apply(self, vectors: Any) -> Any:
        """Return A @ vector of every image."""
        total = vectors.sum(axis=1, keepdims=True)
        if self._unpainted is None:
            connected = self.adjacency.matvec(vectors)
        else:
            kept = self._unpainted * vectors
            connected = self._unpainted * self.adjacency.matvec(kept)
            if self._painted_connected:
                connected += total - self._unpainted * kept.sum(axis=1, keepdims=True)
        return self.eps * total + (1.0 - self.eps) * connected

    def apply_normalised(self, vectors: Any) -> Any:
        """Return D^-1/2 A D^-1/2 @ vector of every image, D the diagonal of its degrees."""
        return self._scale * self.apply(self._scale * vectors)

    def unscale(self, vectors: Any) -> Any:
        """Map eigenvectors of D^-1/2 A D^-1/2 to those of (D - A) x = lambda D x: D^-1/2 @ vector."""
        return self._scale * vectors

    def dense_affinity(self, image: int) -> NDArray[np.float64]:
        """Return A of one image on the host: (T, T) float64."""
        connected = self.adjacency.dense(image)
        if self._unpainted is not None:
            painted = to_numpy(self._unpainted[image]) == 0.0
            connected[painted, :] = self._painted_connected
            connected[:, painted] = self._painted_connected
        return np.where(connected, 1.0, self.eps)

    def dense_normalised(self, image: int) -> NDArray[np.float64]:
        """Return D^-1/2 A D^-1/2 of one image on the host: (T, T) float64."""
        scale = to_numpy(self._scale[image])
        dense: NDArray[np.float64] = scale[:, None] * self.dense_affinity(image) * scale[None, :]
        return dense
