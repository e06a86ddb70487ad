"""Semantic maps, pixel confusion and semantic scores on cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodels.evaluation.metrics.semantic import pixel_confusion, semantic_map, semantic_scores
from segmodels.formats.panoptic import Segment

PREDICTED = np.array([[0, 0, 1, 1], [2, 2, 1, 1]], dtype=np.uint8)
TRUTH = np.array([[0, 1, 1, 1], [2, -1, 2, 1]])
CONFUSION = np.array([[1, 1, 0], [0, 3, 1], [0, 0, 1]])


def test_confusion_leaves_void_out():
    assert (pixel_confusion(PREDICTED, TRUTH, 2, 2) == CONFUSION).all()


def test_semantic_map_of_a_panoptic_map():
    ids = np.array([[0, 30, 10], [50, 50, 20]], dtype=np.int32)
    segments = [Segment(50, 9), Segment(30, 7, iscrowd=1), Segment(10, 8), Segment(20, 6)]
    assert semantic_map(ids, segments, [6, 7], [8, 9]).tolist() == [[-1, 0, 1], [2, 2, 0]]


def test_scores_by_hand():
    scores = semantic_scores(CONFUSION, [0, 1], score_unmapped=True)
    assert scores.pixel_accuracy == pytest.approx(100 * 5 / 7)
    np.testing.assert_allclose(scores.per_class, [50, 60, 50])
    assert scores.mean_iou == pytest.approx(160 / 3)
    assert scores.unmapped_pixels == 0


def test_unmapped_pixels_are_wrong_or_left_out():
    wrong = semantic_scores(CONFUSION, [0, -1], score_unmapped=True)
    assert wrong.pixel_accuracy == pytest.approx(100 * 4 / 7)
    np.testing.assert_allclose(wrong.per_class, [50, 60, 0])
    left_out = semantic_scores(CONFUSION, [0, -1], score_unmapped=False)
    assert left_out.pixel_accuracy == pytest.approx(100 * 4 / 6)
    np.testing.assert_allclose(left_out.per_class, [50, 60, 0])
    assert wrong.unmapped_pixels == left_out.unmapped_pixels == pytest.approx(100 / 7)


def test_two_clusters_may_share_a_class_and_absent_classes_do_not_count():
    confusion = np.array([[4, 0, 0], [0, 3, 0], [0, 5, 0]])
    scores = semantic_scores(confusion, [0, 0], score_unmapped=True)
    assert scores.mean_iou == 100
    assert np.isnan(scores.per_class[2])
    assert semantic_scores(np.zeros((3, 3), int), [0, 1], score_unmapped=True) is None


def test_refuses_other_sizes_and_values():
    with pytest.raises(ValueError, match="height, width"):
        pixel_confusion(PREDICTED, TRUTH[:1], 2, 2)
    with pytest.raises(ValueError, match="at most 1"):
        pixel_confusion(PREDICTED, TRUTH, 1, 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_renaming_clusters_changes_nothing(seed):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 4, (9, 9)).astype(np.int32)
    order = random.permutation(3)
    renamed = np.concatenate([[0], order + 1])[truth]
    confusion = pixel_confusion(renamed, truth, 3, 3)
    scores = semantic_scores(confusion, np.argsort(order), score_unmapped=True)
    assert scores.pixel_accuracy == scores.mean_iou == 100
