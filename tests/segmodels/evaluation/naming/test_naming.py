"""Votes and mappings on cases worked by hand; the halves of a disjoint fit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from kernels.panoptic_quality import overlap_counts, panoptic_counts, segment_overlaps
from segmodels.evaluation.metrics.panoptic import panoptic_scores
from segmodels.evaluation.naming.cluster_mapping import ClusterMapping, fit_mapping
from segmodels.evaluation.naming.named_overlaps import name_overlaps
from segmodels.evaluation.naming.protocol import (
    ONE_TO_ONE,
    U2SEG_CODE,
    U2SEG_PAPER,
    in_mapping_half,
)
from segmodels.evaluation.naming.votes import (
    Objects,
    add_instance_votes,
    shared_pixels,
    stuff_votes,
)


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


def test_stuff_votes_by_hand():
    # Cluster 1 and class 1: 3 shared of 4 + 4 - 3 = 5. Cluster 1, class 2: 1 of 4 + 2 - 1 = 5.
    # Cluster 2 and class 2: 1 of 1 + 2 - 1 = 2.
    both = np.array([[1, 1, 0], [0, 3, 1], [0, 0, 1]])[None].repeat(2, axis=0)
    assert (stuff_votes(both, U2SEG_PAPER) == [[2, 2], [0, 2]]).all()
    stricter = replace(U2SEG_PAPER, min_mask_iou=0.2)
    assert (stuff_votes(both, stricter) == [[2, 0], [0, 2]]).all()
    assert (stuff_votes(both, ONE_TO_ONE) == [[6, 2], [0, 2]]).all()
    assert (stuff_votes(both[:0], U2SEG_PAPER) == 0).all()


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


MAPPING = ClusterMapping(
    things=np.array([1, -1]),
    stuff=np.array([0, 0, -1]),
    thing_votes=np.zeros(2, dtype=int),
    stuff_votes=np.zeros(3, dtype=int),
)
# Thing 1 has class 1, thing 2 none; stuff 3 and 4 share stuff class 0, which is number 2; stuff 5 none.
IDS = np.array([[10, 10, 20, 20, 0, 30], [30, 30, 40, 40, 50, 50]], dtype=np.int32)
CLUSTERS = np.array([1, 2, 3, 4, 5])


def name(pixels, clusters, mapping=MAPPING, num_thing_classes=2, *, merge_stuff):
    return name_overlaps(
        pixels, clusters, mapping, num_thing_classes=num_thing_classes, merge_stuff=merge_stuff
    )


def named_by_pixels(ids, clusters, mapping, num_thing_classes, *, merge_stuff):
    """Reference: rewrite the map, pixel by pixel; (H, W) numbers and the class of each."""
    named, classes, first_of_stuff = np.zeros_like(ids), {}, {}
    for number, (segment_id, cluster) in enumerate(clusters.items(), start=1):
        is_thing = cluster <= len(mapping.things)
        index = cluster - 1 - (0 if is_thing else len(mapping.things))
        class_number = int((mapping.things if is_thing else mapping.stuff)[index])
        if class_number < 0:
            continue
        target = number
        if not is_thing:
            class_number += num_thing_classes
            if merge_stuff:
                target = first_of_stuff.setdefault(class_number, number)
        named[ids == segment_id] = target
        classes[target] = class_number
    return named, classes


def test_segments_take_classes_and_lose_what_has_none():
    # Each pixel of the first column pair, and the rest of each row, is a true segment of its own.
    truth = np.array([[1, 1, 2, 2, 2, 2], [3, 3, 4, 4, 4, 4]])
    pixels = segment_overlaps(IDS, [10, 20, 30, 40, 50], truth, [1, 2, 3, 4])
    named, classes = name(pixels, CLUSTERS, merge_stuff=False)
    assert classes == [1, 2, 2]
    assert named[1:].tolist() == [[0, 2, 0, 0], [3, 0, 1, 0], [0, 0, 2, 0], [2, 0, 0, 2]]
    merged, classes = name(pixels, CLUSTERS, merge_stuff=True)
    assert classes == [1, 2]
    assert merged[1:].tolist() == [[0, 2, 0], [3, 0, 1], [0, 0, 2], [2, 0, 2]]


def test_panoptic_quality_by_hand():
    # Truth: thing of class 1 on the first two pixels, one stuff region on five of six pixels below.
    truth = np.array([[7, 7, 0, 0, 0, 0], [9, 9, 9, 9, 9, 0]])
    pixels = segment_overlaps(IDS, [10, 20, 30, 40, 50], truth, [7, 9])
    for merge in (True, False):
        named, classes = name(pixels, CLUSTERS, merge_stuff=merge)
        counts = overlap_counts(
            named, classes, [1, 2], num_categories=3, crowd=np.zeros(2, dtype=bool)
        )
        scores, _ = panoptic_scores(counts, 2, 1)
        assert scores["things"] == {"PQ": 100, "SQ": 100, "RQ": 100, "classes": 1}
        # Merged: 4 shared, 1 missed, and one predicted pixel lies on void, which does not count.
        assert scores["stuff"]["PQ"] == pytest.approx(100 * 4 / 5 if merge else 0)
        assert scores["all"]["PQ"] == pytest.approx((100 + scores["stuff"]["PQ"]) / 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), merge_stuff=st.booleans())
def test_named_overlaps_score_exactly_as_named_maps(seed, merge_stuff):
    random = np.random.default_rng(seed)
    ids, truth = (random.integers(0, 7, (3, 4)).repeat(5, axis=0) * 3 for _ in range(2))
    ids, truth = ids.repeat(4, axis=1), np.roll(truth.repeat(4, axis=1), 1, axis=1)
    predicted_ids, true_ids = (sorted({*x.ravel().tolist()} - {0}) for x in (ids, truth))
    mapping = replace(MAPPING, things=random.integers(-1, 2, 3), stuff=random.integers(-1, 2, 3))
    clusters = random.integers(1, 7, len(predicted_ids))
    classes = random.integers(0, 4, len(true_ids))
    crowd = random.random(len(true_ids)) < 0.2
    pixels, named = name(
        segment_overlaps(ids, predicted_ids, truth, true_ids),
        clusters, mapping, merge_stuff=merge_stuff,
    )  # fmt: skip
    counts = overlap_counts(pixels, named, classes, num_categories=4, crowd=crowd)
    of_cluster = dict(zip(predicted_ids, clusters.tolist(), strict=True))
    named_map, class_of = named_by_pixels(ids, of_cluster, mapping, 2, merge_stuff=merge_stuff)
    expected = panoptic_counts(
        named_map,
        class_of,
        truth,
        dict(zip(true_ids, classes.tolist(), strict=True)),
        num_categories=4,
        crowd=np.array(true_ids)[crowd].tolist(),
    )
    assert counts.iou.tolist() == expected.iou.tolist()
    for side in ("true_positives", "false_positives", "false_negatives"):
        assert getattr(counts, side).tolist() == getattr(expected, side).tolist()
