"""Overlaps, run lengths, panoptic counts, matching and COCO scores, against plain references."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import distance_transform_edt

from benchmarks.machine import ceilings
from benchmarks.options import Options
from benchmarks.tables import Table
from benchmarks.timing import spelled, time_each
from kernels import rle
from kernels.matching import hungarian, one_to_one
from kernels.overlaps import box_iou_xywh, mask_iou
from kernels.panoptic_quality import panoptic_counts
from segmodels.evaluation.metrics.average_precision import Row, average_precision

HEIGHT, WIDTH = 480, 640
Masks = NDArray[np.bool_]
_PIXEL_BYTES = HEIGHT * WIDTH
_CLASSES = 40


def run(options: Options) -> list[Table]:
    """Measure; each alternative of a row in turns with the others."""
    masks = ellipses(20 if options.quick else 100)
    repeats = 3 if options.quick else 5
    return [
        overlaps(masks, repeats),
        run_lengths(masks, repeats),
        panoptic(repeats),
        matching(repeats),
        coco_scores(20 if options.quick else 100),
    ]


def ellipses(count: int, seed: int = 0) -> Masks:
    """Random upright ellipses: (count, 480, 640) bool."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    masks = np.empty((count, HEIGHT, WIDTH), bool)
    for mask in masks:
        y, x = random.integers(HEIGHT), random.integers(WIDTH)
        high, wide = random.uniform(15, 150, 2)
        np.less_equal(((rows - y) / high) ** 2 + ((columns - x) / wide) ** 2, 1, out=mask)
    return masks


def overlaps(masks: Masks, repeats: int) -> Table:
    """IoU of every mask with every other one, and of boxes."""
    codes = [{"size": [HEIGHT, WIDTH], "counts": code} for code in rle.encode(masks)]
    boxes = rle.bbox_xywh([code["counts"] for code in codes], HEIGHT, WIDTH)
    all_pairs = f"{len(masks)} x {len(masks)} masks"
    crowds = [0] * len(codes)
    rows = []
    for name, some in ((all_pairs, slice(None)), ("3 x 3 masks", slice(3))):
        timed = medians(
            {
                "ours": partial(mask_iou, masks[some], masks[some]),
                "float32 product": partial(product_iou, masks[some]),
                "loop": partial(looped_iou, masks[some]),
                "pycocotools": partial(coco_mask.iou, codes[some], codes[some], crowds[some]),
            },
            repeats,
        )
        size = 2 * len(masks[some]) * _PIXEL_BYTES
        rows.append(cells(name, timed, size / ceilings().memory_bytes))
    timed = medians(
        {
            "ours": partial(box_iou_xywh, boxes, boxes),
            "float32 product": None,
            "loop": partial(looped_box_iou, boxes),
            "pycocotools": partial(
                coco_mask.iou, boxes.astype(np.float64), boxes.astype(np.float64), crowds
            ),
        },
        repeats,
    )
    rows.append(cells(f"{len(boxes)} x {len(boxes)} boxes", timed, None))
    return Table(
        "IoU of all pairs of masks of 480 x 640 pixels. pycocotools gets run lengths, not pixels. "
        "The floor is reading both sides' pixels, a byte each, once.",
        ["pairs", "ours", "floor / ours", "float32 product", "loop over pairs", "pycocotools"],
        rows,
    )


def product_iou(masks: Masks) -> NDArray[np.float64]:
    """Common pixels by one product of matrices, the usual vectorised form."""
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    common, areas = flat @ flat.T, flat.sum(axis=1)
    return common / (areas[:, None] + areas - common)


def looped_iou(masks: Masks) -> NDArray[np.float64]:
    """Every pair on its own."""
    return np.array([[(a & b).sum() / (a | b).sum() for b in masks] for a in masks])


def looped_box_iou(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Every pair on its own."""
    table = np.zeros((len(boxes), len(boxes)))
    for row, (x, y, w, h) in enumerate(boxes.tolist()):
        for column, (u, v, p, q) in enumerate(boxes.tolist()):
            wide = min(x + w, u + p) - max(x, u)
            high = min(y + h, v + q) - max(y, v)
            common = max(wide, 0) * max(high, 0)
            table[row, column] = common / (w * h + p * q - common)
    return table


def run_lengths(masks: Masks, repeats: int) -> Table:
    """Encoding and decoding, ours from and to (m, H, W), theirs from and to (H, W, m)."""
    codes = rle.encode(masks)
    theirs = [{"size": [HEIGHT, WIDTH], "counts": code} for code in codes]
    floor = len(masks) * _PIXEL_BYTES / ceilings().memory_bytes
    encoded = medians(
        {
            "ours": partial(rle.encode, masks),
            "pycocotools": lambda: coco_mask.encode(
                np.asfortranarray(masks.transpose(1, 2, 0).view(np.uint8))
            ),
            "loop": lambda: [looped_counts(mask) for mask in masks[:1]],
        },
        repeats,
    )
    decoded = medians(
        {
            "ours": partial(rle.decode, codes, HEIGHT, WIDTH),
            "pycocotools": lambda: np.ascontiguousarray(
                coco_mask.decode(theirs).transpose(2, 0, 1)
            ),
            "loop": None,
        },
        repeats,
    )
    encoded["loop"] = encoded["loop"] * len(masks) if encoded["loop"] else None
    return Table(
        f"Run lengths of {len(masks)} masks of 480 x 640, memory order changed where it must be. "
        "The loop over pixels was timed on one mask. The floor is one pass over the pixels.",
        ["", "ours", "floor / ours", "pycocotools", "loop over pixels"],
        [cells("encode", encoded, floor), cells("decode", decoded, floor)],
    )


def looped_counts(mask: NDArray[np.bool_]) -> list[int]:
    """Uncompressed counts, pixel by pixel."""
    counts, last = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != last:
            counts.append(0)
            last = pixel
        counts[-1] += 1
    return counts


def panoptic(repeats: int) -> Table:
    """Matches of one image, with small ids and with those of three-byte colours."""
    rows = []
    for name, factor in (("ids 1 to 40", 1), ("ids up to 2^24", 399_999)):
        true_map, predicted_map = cells_of(30, 0) * factor, cells_of(40, 1) * factor
        true = {int(key): int(key) % 7 for key in np.unique(true_map)}
        predicted = {int(key): int(key) % 7 for key in np.unique(predicted_map)}
        timed = medians(
            {
                "ours": partial(
                    panoptic_counts, predicted_map, predicted, true_map, true, num_categories=7
                ),
                "sorted pixels": partial(sorted_overlaps, predicted_map, true_map),
                "loop": partial(looped_overlaps, predicted_map, predicted, true_map, true),
            },
            repeats,
        )
        floor = 2 * true_map.nbytes / ceilings().memory_bytes
        rows.append(cells(name, timed, floor))
    return Table(
        "Panoptic counts of one image of 480 x 640 with 30 true and 40 predicted segments. The "
        "alternatives find the overlaps only: by sorting every pixel's pair of ids, as the COCO "
        "panoptic evaluation does, and by comparing masks pair by pair. The floor is reading both "
        "maps (int64) once.",
        ["", "ours", "floor / ours", "sorted pixels", "loop over pairs"],
        rows,
    )


def cells_of(count: int, seed: int) -> NDArray[np.int64]:
    """A (480, 640) map of ids 1..count: each pixel has the nearest of random places."""
    random = np.random.default_rng(seed)
    places = np.zeros((HEIGHT, WIDTH), np.int64)
    spots = random.choice(HEIGHT * WIDTH, count, replace=False)
    places.reshape(-1)[spots] = np.arange(1, count + 1)
    nearest = distance_transform_edt(places == 0, return_distances=False, return_indices=True)
    return places[tuple(nearest)]


def sorted_overlaps(predicted_map: NDArray[np.int64], true_map: NDArray[np.int64]) -> object:
    """Pixels of every pair of ids by np.unique."""
    return np.unique(true_map * 2**24 + predicted_map, return_counts=True)


def looped_overlaps(
    predicted_map: NDArray[np.int64],
    predicted: Mapping[int, int],
    true_map: NDArray[np.int64],
    true: Mapping[int, int],
) -> object:
    """Pixels of every pair of ids by comparing maps."""
    return [
        np.count_nonzero((true_map == first) & (predicted_map == second))
        for first in true
        for second in predicted
    ]


def matching(repeats: int) -> Table:
    """Clusters to classes."""
    rows = []
    for clusters, classes in ((300, 80), (800, 80), (3000, 100)):
        votes = np.random.default_rng(0).poisson(0.3, (clusters, classes))
        timed = medians(
            {"hungarian": partial(hungarian, votes), "one to one": partial(one_to_one, votes)},
            repeats,
        )
        rows.append([f"{clusters} x {classes}", *map(time_of, timed.values())])
    return Table(
        "Matching of clusters to classes: the assignment (scipy's shortest augmenting paths), and "
        "the assignment with the left-over clusters' majority votes.",
        ["clusters x classes", "assignment", "one to one"],
        rows,
    )


def coco_scores(images: int) -> Table:
    """AP and AR of masks: faster-coco-eval as the project calls it, and pycocotools."""
    truths, results = coco_rows(images)
    sizes = dict.fromkeys(range(1, images + 1), (HEIGHT, WIDTH))
    reached = average_precision(results, truths, sizes, kind="mask")
    expected = pycocotools_ap(truths, results, sizes)
    assert reached is not None
    assert abs(reached.ap - expected) < 1e-9, "both evaluators must give the same AP"
    timed = medians(
        {
            "ours": lambda: average_precision(results, truths, sizes, kind="mask"),
            "pycocotools": partial(pycocotools_ap, truths, results, sizes),
        },
        3,
    )
    return Table(
        f"Mask AP of {len(results):,} results on {len(truths):,} truths in {images} images and {_CLASSES} "
        f"classes, the same AP ({reached.ap:.2f}) from both.",
        ["", "ours (faster-coco-eval)", "pycocotools"],
        [cells("mask AP", timed, None, floor_column=False)],
    )


def coco_rows(images: int) -> tuple[list[Row], list[Row]]:
    """Truths of many classes, and results that are truths moved a little, plus false ones."""
    random = np.random.default_rng(0)
    pool = ellipses(60, seed=2)
    codes = rle.encode(np.concatenate([pool, np.roll(pool, (5, 7), (1, 2))]))
    boxes = rle.bbox_xywh(codes, HEIGHT, WIDTH).tolist()
    areas = rle.area(codes, HEIGHT, WIDTH).tolist()

    def row(image_id: int, place: int, **more: object) -> Row:
        segmentation = {"size": [HEIGHT, WIDTH], "counts": codes[place].decode()}
        shared = {"image_id": image_id, "category_id": place % _CLASSES + 1, "bbox": boxes[place]}
        return {**shared, "segmentation": segmentation, "area": areas[place], **more}

    truths, results = [], []
    for image_id in range(1, images + 1):
        chosen = random.choice(60, 12, replace=False).tolist()
        truths += [row(image_id, place, iscrowd=0) for place in chosen]
        for place in chosen + random.choice(120, 80).tolist():
            moved = place if place >= 60 else place + 60 * int(random.integers(2))
            results.append(row(image_id, moved, score=float(random.random())))
    return truths, results


def pycocotools_ap(
    truths: Sequence[Row], results: Sequence[Row], sizes: Mapping[int, tuple[int, int]]
) -> float:
    """Mask AP in percent with the reference implementation."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": key, "height": h, "width": w} for key, (h, w) in sizes.items()],
            "categories": [{"id": key, "name": str(key)} for key in range(1, _CLASSES + 1)],
            "annotations": [{**row, "id": number} for number, row in enumerate(truths, 1)],
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes([dict(row) for row in results]), "segm")
        evaluator.params.maxDets = [100]
        evaluator.params.areaRng = [[0, 1e10]]
        evaluator.params.areaRngLbl = ["all"]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"]
    return 100 * float(precision[precision > -1].mean())


def medians(
    alternatives: Mapping[str, Callable[[], object] | None], repeats: int
) -> dict[str, float | None]:
    """Median seconds of each alternative, None for one that there is not."""
    given = {name: call for name, call in alternatives.items() if call is not None}
    timed = time_each(given, repeats=repeats)
    return {name: timed[name].median if name in timed else None for name in alternatives}


def cells(
    name: str,
    timed: Mapping[str, float | None],
    floor: float | None,
    *,
    floor_column: bool = True,
) -> list[str]:
    """A row: our time, the share of the floor in it, the others' times with ratios to ours."""
    own, *others = timed.values()
    assert own is not None
    share = [f"{floor / own:.0%}" if floor else "-"] if floor_column else []
    return [
        name,
        spelled(own),
        *share,
        *(f"{spelled(other)} ({other / own:.1f} x)" if other else "-" for other in others),
    ]


def time_of(seconds: float | None) -> str:
    """A duration, or a dash."""
    return spelled(seconds) if seconds else "-"
