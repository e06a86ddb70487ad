"""Dense CRF: three masks of an image, many classes, growth with pixels and with masks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.inputs import photographs
from benchmarks.machine import ceilings
from benchmarks.options import Options
from benchmarks.tables import Table
from benchmarks.timing import spelled, time_each
from kernels.crf import MASKCUT_CRF, STEGO_CRF, CrfSettings, mean_field, refine_masks
from kernels.permutohedral.lattice_cpu import Lattice, build_lattice

CERTAINTY = float(1 / (1 + np.exp(-1)))  # 0.731: the softmax of (0, 1), MaskCut's unary
CLASSES, CLASSES_SIDE = 27, 320
SIDE = 480
ROW_BYTES = 16  # a vertex's or a pixel's values of up to four masks


@dataclass(frozen=True)
class Case:
    """An image (480, 480, 3) uint8 and three masks (3, 480, 480) bool before the CRF."""

    name: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def run(options: Options) -> list[Table]:
    """Measure; the full run takes two to three minutes."""
    images = cases(options)
    if options.quick:
        images = images[:1]
    return [
        three_masks(images, repeats=1 if options.quick else 3),
        many_classes(images[0].image, repeats=1 if options.quick else 3),
        *growth(images[0], quick=options.quick),
    ]


def cases(options: Options) -> list[Case]:
    """Return the reference cases, or the sample's images with blocks of one colour as masks."""
    files = sorted((options.data / "reference" / "maskcut").glob("*.npz")) if options.data else []
    if files:
        loaded = [(file.stem, np.load(file)) for file in files]
        return [Case(name, each["image"], disjoint(each["bip"])) for name, each in loaded]
    found = []
    for index, photograph in enumerate(photographs(options, 6)):
        image = resized(photograph, SIDE)
        blocks = image.reshape(60, 8, 60, 8, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
        bright = blocks > np.quantile(blocks, 0.7, axis=(1, 2), keepdims=True)
        found.append(Case(f"sample {index}", image, disjoint(bright)))
    return found


def disjoint(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks (3, 60, 60) at 480 x 480, each without the earlier ones, as MaskCut gives them."""
    large = masks.repeat(8, axis=1).repeat(8, axis=2)
    large[1:] &= ~np.logical_or.accumulate(large, axis=0)[:-1]
    return large


def resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The image at side x side pixels."""
    return np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of Numba threads."""
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def on_one_core(work: Callable[[], object]) -> Callable[[], object]:
    """The same work on one thread."""

    def alone() -> object:
        with threads(1):
            return work()

    return alone


def three_masks(images: list[Case], repeats: int) -> Table:
    """Three masks of an image, on one core and on all, against three calls of pydensecrf2."""
    rows = []
    for case in images:
        ours = partial(refine_masks, case.image, case.masks, backend="cpu")
        alternatives = {"one core": on_one_core(ours), "all cores": ours}
        theirs = peer(case.image, MASKCUT_CRF)
        if theirs:
            solve = theirs
            alternatives["pydensecrf2"] = lambda case=case, solve=solve: [
                solve(two_class_unary(mask)) for mask in case.masks
            ]
        timed = {
            name: timing.median for name, timing in time_each(alternatives, repeats=repeats).items()
        }
        bilateral = bilateral_lattice(case.image, MASKCUT_CRF)
        floor = moved_bytes(bilateral, MASKCUT_CRF) / ceilings().cache_bytes
        rows.append(
            [
                case.name,
                f"{bilateral.num_vertices:,}",
                spelled(timed["one core"]),
                spelled(timed["all cores"]),
                f"{floor / timed['all cores']:.0%}",
            ]
        )
        if theirs:
            masks = [theirs(two_class_unary(mask))[1] > 0.5 for mask in case.masks]
            rows[-1] += [
                spelled(timed["pydensecrf2"]),
                f"{timed['pydensecrf2'] / timed['one core']:.1f} x",
                f"{mean_iou(ours(), np.stack(masks)):.4f}",
            ]
        else:
            rows[-1] += ["-", "-", "-"]
    return Table(
        "Three masks at 480 x 480, ten steps, lattices included (the position-only one is kept "
        "from image to image). The floor is the bytes that ten steps and the building move, each "
        "array once a pass, at the measured speed of the last-level cache; vertices are reached "
        "out of order. pydensecrf2: three two-class calls with the same constants; the ratio is "
        "to our one core, and it uses one.",
        [
            "case",
            "vertices",
            "one core",
            "all cores",
            "share of the floor",
            "pydensecrf2",
            "ratio",
            "mean IoU of both",
        ],
        rows,
    )


def moved_bytes(bilateral: Lattice, settings: CrfSettings) -> int:
    """Bytes that an image's CRF has to read and write, with each array once a pass.

    Splat and slice read a corner's number and weight (8 bytes) and the points' values; splat
    clears, slice reads the table; each of the d + 1 blur passes reads and writes the table and
    reads two neighbours a vertex. The normalisation is one more such filter. Building writes and
    reads the codes (8 bytes a corner), sorts them in three passes, and writes corners and weights.
    """
    points, sides = bilateral.corners.shape
    smooth_vertices = points // 7  # 30,038 for 480 x 480 and 3 pixels
    filters = 0
    for corners, vertices in ((sides, bilateral.num_vertices), (3, smooth_vertices)):
        gather = 2 * points * (8 * corners + ROW_BYTES) + 2 * points * ROW_BYTES
        blur = vertices * corners * (2 * ROW_BYTES + 8) + 3 * vertices * ROW_BYTES
        filters += gather + blur
    build = points * sides * 8 * (2 + 2 * 3 + 1)
    return (settings.steps + 1) * filters + build


def bilateral_lattice(image: NDArray[np.uint8], settings: CrfSettings) -> Lattice:
    """The lattice over position and colour."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    positions = np.stack([columns, rows]) / settings.bilateral_std
    features = np.vstack([positions, image.reshape(-1, 3).T / settings.colour_std])
    return build_lattice(features.T)


def peer(
    image: NDArray[np.uint8], settings: CrfSettings
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
    """pydensecrf2 from unary (c, H, W) to marginals; None where it is not installed."""
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError:
        return None

    def solve(unary: NDArray[np.float32]) -> NDArray[np.float32]:
        classes, height, width = unary.shape
        crf = DenseCRF2D(width, height, classes)
        crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(classes, -1)))
        crf.addPairwiseGaussian(sxy=settings.smooth_std, compat=settings.smooth_compat)
        crf.addPairwiseBilateral(
            sxy=settings.bilateral_std,
            srgb=settings.colour_std,
            rgbim=np.ascontiguousarray(image),
            compat=settings.bilateral_compat,
        )
        return np.asarray(crf.inference(settings.steps), np.float32).reshape(unary.shape)

    return solve


def two_class_unary(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Negative log-probabilities (2, H, W) of the rest and of the mask."""
    sure, unsure = -np.log(CERTAINTY), -np.log(1 - CERTAINTY)
    return np.stack([np.where(mask, unsure, sure), np.where(mask, sure, unsure)]).astype(np.float32)


def mean_iou(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """Mean over the masks that are not empty in both."""
    unions = (ours | theirs).sum(axis=(1, 2))
    overlaps = (ours & theirs).sum(axis=(1, 2))
    return float((overlaps[unions > 0] / unions[unions > 0]).mean())


def many_classes(photograph: NDArray[np.uint8], repeats: int) -> Table:
    """STEGO's evaluation: 27 classes at 320 x 320."""
    image = resized(photograph, CLASSES_SIDE)
    coarse = np.random.default_rng(0).normal(size=(CLASSES, 40, 40)).astype(np.float32) * 2
    scores = coarse.repeat(8, axis=1).repeat(8, axis=2)
    unary = np.log(np.exp(scores).sum(axis=0)) - scores
    ours = partial(mean_field, image, unary, STEGO_CRF, backend="cpu")
    alternatives = {"one core": on_one_core(ours), "all cores": ours}
    theirs = peer(image, STEGO_CRF)
    if theirs:
        alternatives["pydensecrf2"] = partial(theirs, unary)
    timed = {k: timing.median for k, timing in time_each(alternatives, repeats=repeats).items()}
    row = [
        spelled(timed["one core"]),
        spelled(timed["all cores"]),
        *(
            [
                spelled(timed["pydensecrf2"]),
                f"{timed['pydensecrf2'] / timed['one core']:.1f} x",
                f"{(ours().argmax(axis=0) == theirs(unary).argmax(axis=0)).mean():.2%}",
            ]
            if theirs
            else ["-", "-", "-"]
        ),
    ]
    return Table(
        "27 classes at 320 x 320 with STEGO's constants, ten steps, on block-wise random scores. "
        "The ratio is to our one core; the last column counts pixels of the same class.",
        ["one core", "all cores", "pydensecrf2", "ratio", "same class"],
        [row],
    )


def growth(case: Case, *, quick: bool) -> list[Table]:
    """Three masks at growing sizes, and growing numbers of masks at 480 x 480, on one core."""
    sides = (120, 240, 480) if quick else (120, 240, 480, 720, 960)
    counts = (1, 4, 12) if quick else (1, 2, 3, 4, 6, 8, 12)
    by_side: dict[int, Callable[[], object]] = {}
    for side in sides:
        image = resized(case.image, side)
        masks = np.stack([resized(mask.astype(np.uint8), side) > 0 for mask in case.masks])
        by_side[side] = on_one_core(partial(refine_masks, image, masks, backend="cpu"))
    by_count: dict[int, Callable[[], object]] = {}
    for count in counts:
        masks = np.concatenate([case.masks] * 4)[:count]
        by_count[count] = on_one_core(partial(refine_masks, case.image, masks, backend="cpu"))
    repeats = 2 if quick else 5
    pixels = {side: timed(work, repeats) for side, work in by_side.items()}
    masks_timed = {count: timed(work, repeats) for count, work in by_count.items()}
    return [
        Table(
            "Three masks on one core as the same image grows. The first call at a size, which "
            "also builds the position-only lattice, is not counted.",
            ["side", "pixels", "time", "a pixel"],
            [
                [f"{side}", f"{side**2:,}", spelled(each), spelled(each / side**2)]
                for side, each in pixels.items()
            ],
        ),
        Table(
            "More masks of one image at 480 x 480 on one core: the lattice is built once, and "
            "four masks share a vector register.",
            ["masks", "time", "a mask"],
            [
                [f"{count}", spelled(each), spelled(each / count)]
                for count, each in masks_timed.items()
            ],
        ),
    ]


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds."""
    return time_each({"": work}, repeats=repeats)[""].median
