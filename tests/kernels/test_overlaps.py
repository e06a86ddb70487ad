"""Overlaps of masks and boxes against pycocotools, set arithmetic and hand-worked cases."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from kernels import rle
from kernels.overlaps import box_iou_xywh, mask_iou

BOXES = hnp.arrays(np.int64, st.tuples(st.integers(0, 5), st.just(4)), elements=st.integers(0, 20))


def test_mask_iou_by_hand():
    left = np.array([[[True, True, False, False]]])
    others = np.array([[[True, False, False, False]], [[False, True, True, False]]])

    np.testing.assert_allclose(mask_iou(left, others), [[1 / 2, 1 / 3]])


def test_mask_iou_of_empty_masks_is_zero():
    empty, full = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)

    assert mask_iou(empty, empty) == 0
    assert mask_iou(empty, full) == 0
    assert mask_iou(full, full) == 1


@given(
    hnp.arrays(bool, (3, 6, 5)),
    hnp.arrays(bool, (2, 6, 5)),
)
@settings(max_examples=30, deadline=None)
def test_mask_iou_agrees_with_pycocotools(a, b):
    def coco(masks):
        return [{"size": [6, 5], "counts": counts} for counts in rle.encode(masks)]

    np.testing.assert_allclose(mask_iou(a, b), coco_mask.iou(coco(a), coco(b), [0, 0]))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (8, 8), (9, 11), (5, 64), (7, 93), (0, 4)])
def test_every_pixel_counts_once(shape):
    masks = np.random.default_rng(1).random((4, *shape)) > 0.4

    for first in (masks, ~masks):
        expected = [[np.sum(a & b) / max(np.sum(a | b), 1) for b in masks] for a in first]
        np.testing.assert_array_equal(mask_iou(first, masks), expected)


def test_memory_layout_does_not_matter():
    masks = np.random.default_rng(2).random((7, 9, 5)) > 0.4
    turned = masks.transpose(2, 0, 1)

    np.testing.assert_array_equal(mask_iou(turned, turned), mask_iou(turned.copy(), turned.copy()))


def test_no_masks():
    assert mask_iou(np.zeros((0, 3, 4), bool), np.zeros((2, 3, 4), bool)).shape == (0, 2)


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and \(1, 3, 2\)"):
        mask_iou(np.zeros((1, 2, 3), bool), np.zeros((1, 3, 2), bool))


def test_box_iou_by_hand():
    boxes = [[0, 0, 2, 2], [1, 1, 2, 2], [2, 0, 2, 2]]

    np.testing.assert_allclose(box_iou_xywh(boxes[:1], boxes), [[1, 1 / 7, 0]])


@given(BOXES, BOXES)
@settings(max_examples=30, deadline=None)
def test_box_iou_is_the_mask_iou_of_whole_pixel_boxes(a, b):
    def paint(boxes):
        masks = np.zeros((len(boxes), 40, 40), bool)
        for mask, (x, y, w, h) in zip(masks, boxes, strict=True):
            mask[y : y + h, x : x + w] = True
        return masks

    np.testing.assert_allclose(box_iou_xywh(a, b), mask_iou(paint(a), paint(b)))
