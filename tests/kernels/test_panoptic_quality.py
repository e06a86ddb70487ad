import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality

from kernels.panoptic_quality import PanopticCounts, panoptic_counts


def strip(*runs):
    """A map one pixel high: (id, pixels) after (id, pixels)."""
    return np.concatenate([np.full(pixels, segment) for segment, pixels in runs])[None]


def test_hand_worked_table():
    # Category 1 thing, 2 thing, 3 stuff. Twenty pixels of each.
    true_map = strip((10, 8), (11, 4), (12, 6), (0, 2))
    true = {10: 1, 11: 2, 12: 3}
    predicted_map = strip((5, 6), (6, 6), (7, 8))
    predicted = {5: 1, 6: 2, 7: 3}
    counts = panoptic_counts(predicted_map, predicted, true_map, true, num_categories=4)
    # 5 on 10: 6 of 8 pixels. 6 on 11: 4 of 6. 7 on 12: 6 of 6, its two void pixels do not count.
    np.testing.assert_allclose(counts.iou, [0, 6 / 8, 4 / 6, 1])
    np.testing.assert_array_equal(counts.true_positives, [0, 1, 1, 1])
    np.testing.assert_array_equal(counts.false_positives, 0)
    np.testing.assert_array_equal(counts.false_negatives, 0)

    # A second image: the wrong category costs one of each.
    counts += panoptic_counts(strip((1, 4)), {1: 2}, strip((1, 4)), {1: 1}, num_categories=4)
    np.testing.assert_array_equal(counts.false_positives, [0, 0, 1, 0])
    np.testing.assert_array_equal(counts.false_negatives, [0, 1, 0, 0])

    summary = counts.summary(thing_ids=[0, 1, 2], stuff_ids=[3])
    recognised = 1 / 1.5
    assert summary.per_category[1].pq == pytest.approx(0.75 * recognised)
    assert summary.per_category[2].rq == pytest.approx(recognised)
    assert summary.per_category[2].sq == pytest.approx(2 / 3)
    assert sorted(summary.per_category) == [1, 2, 3]
    assert summary.things.num_categories == 2
    assert summary.things.pq == pytest.approx((0.75 + 2 / 3) / 2 * recognised)
    assert summary.stuff.pq == 1
    assert summary.all.pq == pytest.approx(((0.75 + 2 / 3) * recognised + 1) / 3)
    assert summary.all.sq == pytest.approx((0.75 + 2 / 3 + 1) / 3)


def test_iou_of_exactly_half_is_no_match():
    counts = panoptic_counts(
        strip((1, 5), (0, 5)), {1: 0}, strip((1, 10)), {1: 0}, num_categories=1
    )
    assert counts.true_positives[0] == 0
    assert counts.false_positives[0] == counts.false_negatives[0] == 1


@pytest.mark.parametrize(("on_void", "false_positives"), [(5, 1), (6, 0)])
def test_predictions_mostly_on_void_are_ignored(on_void, false_positives):
    true_map = strip((0, on_void), (1, 30 - on_void))
    predicted_map = strip((1, 10), (0, 20))
    counts = panoptic_counts(predicted_map, {1: 0}, true_map, {1: 0}, num_categories=1)
    assert counts.false_positives[0] == false_positives
    assert counts.false_negatives[0] == 1


@pytest.mark.parametrize(("category", "false_positives"), [(0, 0), (1, 1)])
def test_predictions_on_a_crowd_of_their_category_are_ignored(category, false_positives):
    true_map, predicted_map = strip((1, 10)), strip((1, 5), (2, 5))
    counts = panoptic_counts(
        predicted_map, {1: category, 2: 0}, true_map, {1: 0}, num_categories=2, crowd=[1]
    )
    assert counts.false_positives[category] == false_positives
    assert counts.true_positives.sum() == counts.false_negatives.sum() == 0


def test_void_and_crowd_add_up_to_more_than_half():
    true_map = strip((0, 3), (1, 3), (2, 4))
    predicted_map = strip((1, 10))
    counts = panoptic_counts(
        predicted_map, {1: 0}, true_map, {1: 0, 2: 1}, num_categories=2, crowd=[1]
    )
    assert counts.false_positives.tolist() == [0, 0]
    assert counts.false_negatives.tolist() == [0, 1]


def random_scene(rng, categories, segments=6, size=24):
    """Blocky segment ids, 0 = void, with a category for each id that is left."""
    segment_map = rng.integers(0, segments + 1, (size // 4, size // 4)).repeat(4, 0).repeat(4, 1)
    segment_map = np.where(rng.random((size, size)) < 0.2, np.roll(segment_map, 1, 0), segment_map)
    present = np.unique(segment_map)
    return segment_map, {int(i): int(rng.integers(categories)) for i in present if i}


def disturbed(rng, segment_map, categories, of):
    """A scene that shares most of its segments with another one."""
    shifted = np.roll(segment_map, int(rng.integers(3)), axis=1)
    lost = rng.random(shifted.shape) < 0.1
    shifted = np.where(lost, 0, shifted)
    keep = {int(i) for i in np.unique(shifted) if i}
    flip = {i: of[i] if rng.random() < 0.8 else int(rng.integers(categories)) for i in keep}
    return shifted, flip


def with_categories(segment_map, segments, void):
    """(1, H, W, 2) tensor of category and instance, as torchmetrics wants it."""
    lookup = np.full(segment_map.max() + 1, void)
    for segment, category in segments.items():
        lookup[segment] = category
    return torch.from_numpy(np.stack([lookup[segment_map], segment_map], axis=-1))[None]


def test_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    counts = PanopticCounts.zeros(5)
    metric = PanopticQuality(
        things={0, 1, 2}, stuffs={3, 4}, allow_unknown_preds_category=True, return_per_class=True
    )
    for _ in range(12):
        true_map, true = random_scene(rng, 3)
        predicted_map, predicted = disturbed(rng, true_map, 3, true)
        # That library forgives pixels that the prediction leaves void, the COCO rules do not:
        # let every pixel be predicted. And it takes one segment a stuff category at most.
        predicted_map = np.where(predicted_map == 0, 9, predicted_map)
        predicted[9] = 3
        true[min(true)] = 3
        true[max(true)] = 4
        counts += panoptic_counts(predicted_map, predicted, true_map, true, num_categories=5)
        metric.update(
            with_categories(predicted_map, predicted, 99), with_categories(true_map, true, 99)
        )
    summary = counts.summary([0, 1, 2], [3, 4])
    theirs = metric.compute().ravel().numpy()
    ours = [
        summary.per_category[category].pq if category in summary.per_category else 0
        for category in range(5)
    ]
    assert summary.things.pq > 0.2
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def brute_force(predicted_map, predicted, true_map, true, *, num_categories, crowd):
    """The rules of the COCO panoptic evaluation with one loop over pairs and one over each side."""
    iou = np.zeros(num_categories)
    tp, fp, fn = (np.zeros(num_categories, int) for _ in range(3))
    found_true, found_predicted = set(), set()
    for i, category in true.items():
        for j, other in predicted.items():
            a, b = true_map == i, predicted_map == j
            union = (a | b).sum() - (b & (true_map == 0)).sum()
            overlap = (a & b).sum() / union
            if category == other and i not in crowd and overlap > 0.5:
                iou[category] += overlap
                tp[category] += 1
                found_true.add(i)
                found_predicted.add(j)
    for i, category in true.items():
        fn[category] += i not in crowd and i not in found_true
    for j, category in predicted.items():
        excused = true_map == 0
        for i in crowd:
            if true[i] == category:
                excused |= true_map == i
        inside = predicted_map == j
        fp[category] += j not in found_predicted and (inside & excused).sum() / inside.sum() <= 0.5
    return iou, tp, fp, fn


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_brute_force_with_crowds(seed):
    rng = np.random.default_rng(seed)
    true_map, true = random_scene(rng, 3)
    predicted_map, predicted = disturbed(rng, true_map, 3, true)
    crowd = {segment for segment in true if rng.random() < 0.3}
    counts = panoptic_counts(
        predicted_map, predicted, true_map, true, num_categories=3, crowd=crowd
    )
    iou, tp, fp, fn = brute_force(
        predicted_map, predicted, true_map, true, num_categories=3, crowd=crowd
    )
    np.testing.assert_allclose(counts.iou, iou)
    np.testing.assert_array_equal(counts.true_positives, tp)
    np.testing.assert_array_equal(counts.false_positives, fp)
    np.testing.assert_array_equal(counts.false_negatives, fn)


def test_a_perfect_prediction_scores_one():
    true_map, true = random_scene(np.random.default_rng(3), 4)
    summary = panoptic_counts(true_map, true, true_map, true, num_categories=4).summary(
        range(4), []
    )
    assert summary.all.pq == summary.all.sq == summary.all.rq == 1


def test_nothing_predicted_and_nothing_there():
    nothing = np.zeros((3, 3), np.int32)
    counts = panoptic_counts(nothing, {}, nothing, {}, num_categories=2)
    summary = counts.summary([0], [1])
    assert summary.all.num_categories == 0
    assert summary.all.pq == 0
    assert summary.per_category == {}


def test_large_ids():
    # Three-byte colours make ids up to 2^24 - 1 on both sides.
    large = 2**24 - 1
    segment_map = np.full((2, 2), large, np.int32)
    counts = panoptic_counts(segment_map, {large: 0}, segment_map, {large: 0}, num_categories=1)
    assert counts.true_positives[0] == 1


def test_the_size_of_ids_does_not_matter():
    rng = np.random.default_rng(5)
    true_map, true = random_scene(rng, 3)
    predicted_map, predicted = disturbed(rng, true_map, 3, true)
    small = panoptic_counts(predicted_map, predicted, true_map, true, num_categories=3)
    # As read from three-byte colours.
    far = 99_991
    large = panoptic_counts(
        predicted_map * far,
        {segment * far: category for segment, category in predicted.items()},
        true_map * far,
        {segment * far: category for segment, category in true.items()},
        num_categories=3,
    )
    np.testing.assert_array_equal(small.iou, large.iou)
    np.testing.assert_array_equal(small.false_positives, large.false_positives)
    np.testing.assert_array_equal(small.false_negatives, large.false_negatives)


@pytest.mark.parametrize(
    ("predicted_map", "predicted", "true", "message"),
    [
        (strip((1, 2)), {1: 0}, {1: 0}, "equal in shape"),
        (strip((2, 4)), {1: 0}, {1: 0}, "the predicted map holds id 2"),
        (strip((1, 4)), {1: 0}, {2: 0}, "the true map holds id 1"),
        (strip((1, 4)), {1: 0, 3: 0}, {1: 0}, "predicted segment 3 has no pixel"),
        (strip((1, 4)), {1: 0}, {1: 7}, r"categories must be in \[0, 1\]"),
        (strip((0, 4)), {0: 0}, {1: 0}, "must be above 0"),
        (strip((-1, 4)), {}, {1: 0}, "must not be negative"),
    ],
)
def test_wrong_input_is_refused(predicted_map, predicted, true, message):
    with pytest.raises(ValueError, match=message):
        panoptic_counts(predicted_map, predicted, strip((1, 4)), true, num_categories=2)


def test_wrong_sums_and_groups_are_refused():
    with pytest.raises(ValueError, match="do not add up"):
        PanopticCounts.zeros(2) + PanopticCounts.zeros(3)
    with pytest.raises(ValueError, match="both thing and stuff"):
        PanopticCounts.zeros(2).summary([0, 1], [1])
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 2"):
        PanopticCounts.zeros(2).summary([2], [])
