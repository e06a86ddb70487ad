"""Votes and mappings on cases worked by hand; the halves of a disjoint fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from kernels.panoptic_quality import panoptic_counts
from segmodels.evaluation.metrics.panoptic import panoptic_scores
from segmodels.evaluation.naming.instance_mapping import (
    ClusterMapping,
    Objects,
    add_instance_votes,
    fit_mapping,
    shared_pixels,
)
from segmodels.evaluation.naming.protocol import (
    ONE_TO_ONE,
    U2SEG_CODE,
    U2SEG_PAPER,
    in_mapping_half,
    protocol_by_name,
)
from segmodels.evaluation.naming.segment_maps import (
    name_segments,
    number_segments,
    semantic_classes,
)
from segmodels.formats.panoptic import Segment


def code(mask):
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def objects(boxes, labels, scores=None):
    masks = []
    for x, y, width, height in boxes:
        mask = np.zeros((20, 30), dtype=bool)
        mask[y : y + height, x : x + width] = True
        masks.append(code(mask))
    return Objects(
        np.array(labels, dtype=np.int64),
        np.array(boxes, dtype=float).reshape(-1, 4),
        masks,
        np.array(scores if scores is not None else np.ones(len(labels)), dtype=float),
    )


TRUTH = objects([(0, 0, 10, 10), (12, 0, 10, 10), (0, 0, 10, 9)], [0, 1, 1])
# IoU with the truths: exact; 0.8 with the second; 0.65 with the second; exact but unsure.
FOUND = objects(
    [(0, 0, 10, 10), (12, 0, 10, 8), (12, 0, 10, 6), (12, 0, 10, 10)],
    [0, 1, 1, 2],
    [0.9, 0.6, 0.45, 0.3],
)


def votes_of(protocol, found=FOUND, truth=TRUTH):
    votes = np.zeros((3, 2), dtype=np.int64)
    add_instance_votes(votes, found, truth, protocol)
    return votes.tolist()


def test_box_votes_by_hand():
    # The first prediction overlaps truth 0 by 1 and truth 2 by 0.9: it votes twice.
    # 0.6 is no overlap above 0.6, so the third stays silent in both.
    assert votes_of(U2SEG_PAPER) == [[1, 1], [0, 1], [0, 0]]
    assert votes_of(U2SEG_CODE) == [[1, 1], [0, 1], [0, 0]]
    closer = objects([(12, 0, 10, 7)], [1], [0.5])
    assert votes_of(U2SEG_PAPER, closer) == [[0, 0], [0, 1], [0, 0]]
    assert votes_of(U2SEG_CODE, closer) == [[0, 0], [0, 0], [0, 0]]


def test_pixel_votes_by_hand():
    assert votes_of(ONE_TO_ONE) == [[100, 90], [0, 80 + 60], [0, 100]]


def test_votes_add_up_over_images_and_need_both_sides():
    votes = np.zeros((3, 2), dtype=np.int64)
    empty = objects([], [])
    for found, truth in ((FOUND, TRUTH), (FOUND, TRUTH), (FOUND, empty), (empty, TRUTH)):
        add_instance_votes(votes, found, truth, U2SEG_PAPER)
    assert votes.tolist() == [[2, 2], [0, 2], [0, 0]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_shared_pixels_equal_decoded_masks(seed):
    random = np.random.default_rng(seed)
    a, b = random.random((2, 3, 13, 17)) < random.random((2, 1, 1, 1))
    expected = (a[:, None] & b[None]).sum(axis=(2, 3))
    assert (shared_pixels([code(m) for m in a], [code(m) for m in b]) == expected).all()


def test_rules_by_hand():
    things = np.array([[5, 4], [6, 1], [0, 0]])
    stuff = np.array([[9], [3]])
    majority = fit_mapping(things, stuff, U2SEG_PAPER)
    assert majority.things.tolist() == [0, 0, -1]
    assert majority.thing_votes.tolist() == [5, 6, 0]
    assert majority.stuff.tolist() == [0, 0]
    # 4 + 6 beats 5 + 1; the second stuff cluster is left over and follows its votes.
    assigned = fit_mapping(things, stuff, ONE_TO_ONE)
    assert assigned.things.tolist() == [1, 0, -1]
    assert assigned.thing_votes.tolist() == [4, 6, 0]
    assert assigned.stuff.tolist() == [0, 0]
    assert assigned.stuff_votes.tolist() == [9, 3]


@pytest.mark.parametrize("protocol", [U2SEG_PAPER, ONE_TO_ONE])
def test_mapping_without_classes_or_clusters(protocol):
    mapping = fit_mapping(np.zeros((3, 0), dtype=int), np.zeros((0, 2), dtype=int), protocol)
    assert mapping.things.tolist() == [-1, -1, -1]
    assert mapping.stuff.tolist() == []


def test_halves_are_stable_and_balanced():
    half = [in_mapping_half(image_id) for image_id in range(2000)]
    assert 900 < sum(half) < 1100
    # Pinned: a change would move every published disjoint number.
    assert [image_id for image_id in range(12) if half[image_id]] == [1, 5, 6, 9, 10, 11]


def test_protocols_by_name():
    assert protocol_by_name("one-to-one") is ONE_TO_ONE
    with pytest.raises(ValueError, match="u2seg-paper"):
        protocol_by_name("u2seg")


MAPPING = ClusterMapping(
    things=np.array([1, -1]),
    stuff=np.array([0, 0, -1]),
    thing_votes=np.zeros(2, dtype=int),
    stuff_votes=np.zeros(3, dtype=int),
)
# Thing 1 has class 1, thing 2 none; stuff 3 and 4 share stuff class 0, which is number 2; stuff 5 none.
IDS = np.array([[10, 10, 20, 20, 0, 30], [30, 30, 40, 40, 50, 50]], dtype=np.int32)
PREDICTED = number_segments(IDS, [Segment(10 * i, i) for i in (5, 1, 4, 2, 3)])


def test_numbering_and_semantic_classes():
    assert PREDICTED.numbers.tolist() == (IDS // 10).tolist()
    assert PREDICTED.categories.tolist() == [1, 2, 3, 4, 5]
    crowd = number_segments(IDS[:, 4:], [Segment(30, 7, iscrowd=1), Segment(50, 9)])
    assert crowd.crowd.tolist() == [True, False]
    assert semantic_classes(crowd, [7], [8, 9]).tolist() == [[-1, 0], [2, 2]]


def test_segments_take_classes_and_lose_what_has_none():
    named, classes = name_segments(PREDICTED, MAPPING, num_thing_classes=2, merge_stuff=False)
    assert named.tolist() == [[1, 1, 0, 0, 0, 3], [3, 3, 4, 4, 0, 0]]
    assert classes == {1: 1, 3: 2, 4: 2}
    merged, classes = name_segments(PREDICTED, MAPPING, num_thing_classes=2, merge_stuff=True)
    assert merged.tolist() == [[1, 1, 0, 0, 0, 3], [3, 3, 3, 3, 0, 0]]
    assert classes == {1: 1, 3: 2}


def test_panoptic_quality_by_hand():
    # Truth: thing of class 1 on the first two pixels, one stuff region on five of six pixels below.
    truth = np.array([[7, 7, 0, 0, 0, 0], [9, 9, 9, 9, 9, 0]])
    for merge in (True, False):
        named, classes = name_segments(PREDICTED, MAPPING, num_thing_classes=2, merge_stuff=merge)
        counts = panoptic_counts(named, classes, truth, {7: 1, 9: 2}, num_categories=3)
        scores, _ = panoptic_scores(counts, 2, 1)
        assert scores["things"] == {"PQ": 100, "SQ": 100, "RQ": 100, "classes": 1}
        # Merged: 4 shared, 1 missed, and one predicted pixel lies on void, which does not count.
        assert scores["stuff"]["PQ"] == pytest.approx(100 * 4 / 5 if merge else 0)
        assert scores["all"]["PQ"] == pytest.approx((100 + scores["stuff"]["PQ"]) / 2)
