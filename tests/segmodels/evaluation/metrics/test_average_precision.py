"""Average precision against pycocotools, and its corner cases."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segmodels.evaluation.metrics.average_precision import average_precision, merge_classes

HEIGHT, WIDTH = 40, 52


def row(image_id, category_id, box, **more):
    """A COCO row whose mask is an ellipse inside the box."""
    x, y, width, height = box
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = ((columns - x - width / 2) / (width / 2)) ** 2 + (
        (rows - y - height / 2) / (height / 2)
    ) ** 2
    code = coco_mask.encode(np.asfortranarray(inside <= 1, dtype=np.uint8))
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [float(side) for side in box],
        "area": float(width * height),
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()},
        **more,
    }


def random_case(seed, images=5, classes=3):
    """Truths, and results that are displaced truths plus noise, in random order of score."""
    random = np.random.default_rng(seed)
    truths, results = [], []
    for image_id in range(1, images + 1):
        for _ in range(random.integers(0, 7)):
            width, height = random.integers(4, 20, 2)
            box = np.array(
                [
                    random.integers(0, WIDTH - width),
                    random.integers(0, HEIGHT - height),
                    width,
                    height,
                ]
            )
            category = int(random.integers(1, classes + 1))
            truths.append(row(image_id, category, box, iscrowd=int(random.random() < 0.15)))
            for _ in range(random.integers(0, 3)):
                moved = box + random.integers(-2, 3, 4)
                moved[2:] = np.maximum(moved[2:], 2)
                if random.random() < 0.2:
                    category = int(random.integers(1, classes + 1))
                results.append(row(image_id, category, moved, score=float(random.random())))
    return truths, results, dict.fromkeys(range(1, images + 1), (HEIGHT, WIDTH))


def pycocotools_scores(truths, results, sizes, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        for coco, rows in ((truth, truths), (found, results)):
            coco.dataset = {
                "images": [{"id": i, "height": h, "width": w} for i, (h, w) in sizes.items()],
                "categories": [{"id": i} for i in sorted({r["category_id"] for r in truths})],
                "annotations": [{"iscrowd": 0, **r, "id": n} for n, r in enumerate(rows, start=1)],
            }
            coco.createIndex()
        evaluator = COCOeval(truth, found, {"box": "bbox", "mask": "segm"}[kind])
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return 100 * evaluator.stats[[0, 1, 2, 8]], evaluator


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools(seed, kind):
    truths, results, sizes = random_case(seed)
    expected, evaluator = pycocotools_scores(truths, results, sizes, kind)
    score = average_precision(results, truths, sizes, kind=kind)
    np.testing.assert_allclose(list(score.as_dict().values()), expected, atol=1e-9)
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    for index, class_id in enumerate(evaluator.params.catIds):
        if (precision[:, :, index] > -1).any():
            assert score.per_class[class_id] == pytest.approx(100 * precision[:, :, index].mean())


@pytest.mark.parametrize("seed", range(3))
def test_merged_classes_equal_pycocotools_without_categories(seed):
    truths, results, sizes = (*random_case(seed),)
    merged = merge_classes(truths), merge_classes(results)
    expected, _ = pycocotools_scores(*merged, sizes, "mask")
    score = average_precision(merged[1], merged[0], sizes, kind="mask")
    np.testing.assert_allclose(list(score.as_dict().values()), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("max_detections", [(1,), (3, 10), (1, 2, 100)])
def test_recall_at_several_counts_equals_pycocotools(max_detections, kind):
    truths, results, sizes = random_case(12, images=8)
    truths, results = merge_classes(truths), merge_classes(results)
    _, evaluator = pycocotools_scores(truths, results, sizes, kind)
    evaluator.params.maxDets = list(max_detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    score = average_precision(results, truths, sizes, kind=kind, max_detections=max_detections)
    recall = evaluator.eval["recall"][:, 0, 0].mean(axis=0)
    assert tuple(score.recall) == max_detections
    np.testing.assert_allclose(list(score.recall.values()), 100 * recall)
    precision = evaluator.eval["precision"][:, :, 0, 0, -1]
    assert score.ap == pytest.approx(100 * precision.mean())
    assert score.ap50 == pytest.approx(100 * precision[0].mean())
    assert list(score.as_dict())[3:] == [f"AR{count}" for count in max_detections]


def test_more_than_a_hundred_detections_count_only_the_best_hundred():
    truths = [row(1, 1, (4, 4, 12, 12), iscrowd=0)]
    noise = [row(1, 1, (30, 20, 8, 8), score=0.9) for _ in range(100)]
    found = [*noise, row(1, 1, (4, 4, 12, 12), score=0.1)]
    sizes = {1: (HEIGHT, WIDTH)}
    assert average_precision(found, truths, sizes, kind="box").recall[100] == 0
    assert average_precision(found[1:], truths, sizes, kind="box").recall[100] == 100


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_perfect_results_score_a_hundred(kind):
    truths, _, sizes = random_case(11)
    truths = [t for t in truths if not t["iscrowd"]]
    results = [{**t, "score": 1.0} for t in truths]
    score = average_precision(results, truths, sizes, kind=kind)
    assert set(score.as_dict().values()) == {100.0}


def test_nothing_found_scores_zero_and_nothing_to_find_scores_nothing():
    truths, results, sizes = random_case(2)
    assert set(average_precision([], truths, sizes, kind="mask").as_dict().values()) == {0.0}
    assert average_precision(results, [], sizes, kind="box") is None
    crowd = [{**t, "iscrowd": 1} for t in truths]
    assert average_precision(results, crowd, sizes, kind="box") is None


def test_prints_nothing_and_leaves_its_inputs_alone(capfd):
    truths, results, sizes = random_case(4)
    before = repr((truths, results))
    average_precision(results, truths, sizes, kind="mask")
    assert repr((truths, results)) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_image_ids_may_be_as_large_as_json_keeps_them_exact(kind):
    truths, results, sizes = random_case(3)
    far = 2**53 - 100
    moved = [[{**r, "image_id": r["image_id"] + far} for r in rows] for rows in (results, truths)]
    far_sizes = {image_id + far: size for image_id, size in sizes.items()}
    expected = average_precision(results, truths, sizes, kind=kind)
    assert average_precision(*moved, far_sizes, kind=kind) == expected
