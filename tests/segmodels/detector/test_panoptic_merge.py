"""Panoptic merging and map resizing by hand-worked cases."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from kernels import rle
from segmodels.detector.panoptic_merge import merge_panoptic
from segmodels.formats.coco import Result


def instance(category: int, score: float, rows: slice, columns: slice) -> Result:
    mask = np.zeros((1, 6, 8), dtype=bool)
    mask[0, rows, columns] = True
    return Result(1, category, score, rle.encode(mask)[0], 6, 8)


def merge(instances, semantic, **changes):
    given = {
        "num_things": 5,
        "score_threshold": 0.5,
        "overlap_threshold": 0.5,
        "min_stuff_pixels": 4,
    }
    segment_map, segments = merge_panoptic(instances, semantic, **(given | changes))
    return segment_map, [(s.id, s.category_id) for s in segments]


def test_better_instances_lie_on_top_and_stuff_fills_the_rest() -> None:
    semantic = np.ones((6, 8), dtype=np.uint8)
    semantic[3:] = 2
    weak = instance(2, 0.6, slice(0, 2), slice(0, 4))  # 8 px, half of them under the better one
    strong = instance(1, 0.9, slice(0, 2), slice(2, 6))
    segment_map, segments = merge([weak, strong], semantic)
    # Exactly half covered is not more than half: the weak one keeps its visible part.
    assert segments == [(1, 1), (2, 2), (3, 6), (4, 7)]
    expected = np.array([[2, 2, 1, 1, 1, 1, 3, 3]] * 2 + [[3] * 8] + [[4] * 8] * 3, dtype=np.int32)
    np.testing.assert_array_equal(segment_map, expected)


def test_covered_and_unsure_instances_stay_out() -> None:
    semantic = np.zeros((6, 8), dtype=np.uint8)
    first = instance(1, 0.9, slice(0, 2), slice(0, 5))
    covered = instance(2, 0.8, slice(0, 2), slice(2, 6))  # 6 of its 8 px are covered
    unsure = instance(3, 0.49, slice(4, 6), slice(0, 8))
    segment_map, segments = merge([first, covered, unsure], semantic)
    assert segments == [(1, 1)]
    assert (segment_map > 0).sum() == 10


def test_small_stuff_and_thing_pixels_become_void() -> None:
    semantic = np.zeros((6, 8), dtype=np.uint8)
    semantic[0, :3] = 1  # 3 px: too small
    semantic[2, :4] = 2  # 4 px: just large enough
    segment_map, segments = merge([], semantic)
    assert segments == [(1, 7)]
    assert (segment_map > 0).sum() == 4


def test_equal_scores_keep_their_order_and_an_identical_mask_goes() -> None:
    semantic = np.zeros((6, 8), dtype=np.uint8)
    twins = [instance(c, 0.7, slice(0, 3), slice(0, 3)) for c in (4, 2)]
    assert merge(twins, semantic, overlap_threshold=1.0)[1] == [(1, 4)]


def test_more_clusters_than_bytes_or_thousands() -> None:
    semantic = np.full((6, 8), 254, dtype=np.uint8)
    found = instance(2911, 0.9, slice(0, 2), slice(0, 2))
    assert merge([found], semantic, num_things=2911)[1] == [(1, 2911), (2, 3165)]


def test_paste_fills_the_box_and_no_pixel_beyond() -> None:
    from segmodels.detector.prediction import paste_mask

    mask = paste_mask(torch.ones(4, 4), torch.tensor([1.0, 2.0, 5.0, 4.0]), 6, 8)
    expected = np.zeros((6, 8), dtype=bool)
    expected[2:4, 1:5] = True
    np.testing.assert_array_equal(mask, expected)
    left = torch.cat([torch.ones(4, 2), torch.zeros(4, 2)], dim=1)
    half = paste_mask(left, torch.tensor([-4.0, 0.0, 4.0, 6.0]), 6, 8)
    assert not half.any()  # its left half lies outside the image
    assert not paste_mask(torch.ones(4, 4), torch.tensor([3.0, 3.0, 3.0, 3.0]), 6, 8).any()


@pytest.mark.parametrize("size", [(7, 9), (40, 31)])
def test_label_map_is_the_argmax_of_resized_logits(size: tuple[int, int]) -> None:
    from segmodels.detector.registration import register

    register()
    from segmodels.detector.panoptic_model import label_map

    logits = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = functional.interpolate(logits[None], size=(32, 32), mode="bilinear")
    resized = functional.interpolate(whole[..., :28, :30], size=size, mode="bilinear")
    got = label_map(logits, (28, 30), (32, 32), size)
    assert torch.equal(got.long(), resized[0].argmax(dim=0))
