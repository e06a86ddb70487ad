"""Run-length encoding: COCO's own worked counts, round trips, areas and boxes."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from kernels import rle
from kernels.overlaps import mask_iou

MASKS = hnp.arrays(bool, st.tuples(*[st.integers(1, 9)] * 3))


def test_encode_runs_down_the_columns_starting_with_background():
    # Column-major pixels of this mask: 0 1 | 1 1 | 0 0, so the runs are 1, 3, 2.
    mask = np.array([[[False, True, False], [True, True, False]]])

    (counts,) = rle.encode(mask)

    reference = coco_mask.frPyObjects({"size": [2, 3], "counts": [1, 3, 2]}, 2, 3)
    assert counts == reference["counts"]


@given(MASKS)
@settings(max_examples=30, deadline=None)
def test_decode_inverts_encode(masks):
    counts = rle.encode(masks)

    assert all(isinstance(code, bytes) for code in counts)
    np.testing.assert_array_equal(rle.decode(counts, *masks.shape[1:]), masks)


@given(MASKS)
@settings(max_examples=30, deadline=None)
def test_area_and_box_agree_with_the_pixels(masks):
    counts = rle.encode(masks)
    height, width = masks.shape[1:]

    np.testing.assert_array_equal(rle.area(counts, height, width), masks.sum(axis=(1, 2)))
    for mask, box in zip(masks, rle.bbox_xywh(counts, height, width), strict=True):
        rows, columns = np.nonzero(mask)
        expected = (
            [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            if rows.size
            else [0, 0, 0, 0]
        )
        np.testing.assert_array_equal(box, expected)


def test_memory_layout_does_not_matter():
    masks = np.random.default_rng(0).random((7, 5, 3)) > 0.5

    assert rle.encode(masks.transpose(2, 1, 0)) == rle.encode(masks.transpose(2, 1, 0).copy())


def test_no_masks():
    assert rle.encode(np.zeros((0, 4, 6), dtype=bool)) == []
    assert rle.decode([], 4, 6).shape == (0, 4, 6)
    assert rle.area([], 4, 6).shape == (0,)
    assert rle.bbox_xywh([], 4, 6).shape == (0, 4)


@pytest.mark.parametrize(
    "masks", [np.zeros((3, 4), bool), np.zeros((1, 3, 4), np.uint8)], ids=["shape", "dtype"]
)
def test_encode_names_the_expected_shape(masks):
    with pytest.raises(ValueError, match=r"masks must be \(m, H, W\) bool"):
        rle.encode(masks)


@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0, 0.3, 0.8, 1]))
@settings(max_examples=60, deadline=None)
def test_enlarged_codes_and_samples_are_those_of_the_pixels(seed, share):
    rng = np.random.default_rng(seed)
    small = rng.random(rng.integers(1, 7, 2)) < share
    rows, columns = (np.sort(rng.integers(0, side, 9)) for side in small.shape)
    large = small[rows][:, columns]
    code = rle.encode_enlarged(small, rows, columns)
    assert code == rle.encode(large[None])[0]
    taken = np.sort(rng.integers(0, 9, 5))
    assert np.array_equal(rle.sample([code], 9, 9, taken, taken)[0], large[taken][:, taken])


def test_iou_of_codes_is_that_of_their_masks():
    masks = np.random.default_rng(0).random((4, 9, 7)) < 0.4
    masks[3] = False
    assert np.array_equal(rle.iou(rle.encode(masks), 9, 7), mask_iou(masks, masks))
