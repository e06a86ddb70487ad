"""Whether MaskCut's masks are those of a dense solver, on the keys of a real vision transformer."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from benchmarks.inputs import cases, photographs, vit_keys
from benchmarks.options import Options
from benchmarks.published_ncut import published_affinity
from benchmarks.tables import Table
from kernels.ncut.eigen import Eigenpairs
from kernels.ncut.repeated_cuts import cut_repeatedly, maskcut

EPS, MASKS = 1e-5, 3


@dataclass
class Comparison:
    """Masks of one set of images, ours against the dense solver's.

    Attributes:
        masks: how many were compared, empty ones included.
        differing: a remark on each that is not identical.
    """

    masks: int = 0
    differing: list[str] = field(default_factory=list)


def run(options: Options) -> list[Table]:
    """Compare; the full run solves some 660 dense problems, five minutes."""
    rows = []
    reference = cases(options)
    sets = [("the six cases, 3,600 tokens", list(reference.values()), 0.15)]
    for count, size in ((20, 480), (200, 240)):
        images = photographs(options, min(count, 4) if options.quick else count)
        keys = [key.reshape(-1, key.shape[-1]) for key in vit_keys(images, size)]
        title = f"{len(keys)} photographs, embedded backbone, {(size // 8) ** 2:,} tokens"
        sets.append((title, keys, _recommended_tau()))
    if options.quick:
        sets = sets[2:]
    for title, keys, tau in sets:
        compared = Comparison()
        for image, key in enumerate(keys):
            compare(image, key, tau, compared)
        same = compared.masks - len(compared.differing)
        rows.append(
            [
                title,
                str(compared.masks),
                f"{same} ({same / compared.masks:.1%})",
                "; ".join(compared.differing) or "-",
            ]
        )
    return [
        Table(
            "Masks of three repetitions, ours against LAPACK's dense symmetric solver on the "
            "affinity written out, both under the rule that an eigenvector's largest entry is "
            "positive. An empty mask counts as a mask.",
            ["images", "masks", "identical", "what differs"],
            rows,
        )
    ]


def compare(image: int, keys: NDArray[np.float32], tau: float, compared: Comparison) -> None:
    """Cut one image both ways and note the differences."""
    side = round(len(keys) ** 0.5)
    gaps: list[float] = []

    def solve(_: NDArray[np.int64], painted: NDArray[np.bool_]) -> Eigenpairs:
        values, vector = dense_eigenpairs(keys, painted[0], tau)
        gaps.append(values[1] - values[0])
        return Eigenpairs(values[:1], vector[None], np.array([True]))

    (theirs,) = cut_repeatedly(solve, (1, side, side), max_masks=MASKS)
    ours = maskcut(keys, (side, side), tau=tau, eps=EPS, max_masks=MASKS)
    for repetition in range(MASKS):
        compared.masks += 1
        different = np.count_nonzero(ours.masks[repetition] != theirs.masks[repetition])
        if different:
            compared.differing.append(
                f"image {image}, mask {repetition + 1}: {different} patches, smallest gap between "
                f"eigenvalues so far {min(gaps):.0e}"
            )


def dense_eigenpairs(
    keys: NDArray[np.float32], painted: NDArray[np.bool_], tau: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Second and third smallest lambda, and the second's vector x, by LAPACK.

    The symmetric form D^-1/2 A D^-1/2, as it takes a sixth of the generalised one's time.
    """
    unpainted = np.where(painted[:, None], np.float32(0), keys)
    affinity = published_affinity(unpainted, tau, EPS)
    scale = affinity.sum(axis=1) ** -0.5
    size = len(keys)
    values, vectors = scipy.linalg.eigh(
        scale[:, None] * affinity * scale, subset_by_index=[size - 3, size - 2]
    )
    return 1.0 - values[::-1], scale * vectors[:, 1]


@lru_cache
def _recommended_tau() -> float:
    from segmodels.backbones import load_backbone

    return load_backbone("embedded").tau
