"""Selection of thing masks by score, area, overlap and number."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.overlaps import mask_iou
from segmodels.cutler.thing_masks import (
    ThingMaskSettings,
    ThingMaskShard,
    border_shares,
    select_things,
    thing_mask_shard,
)
from segmodels.formats.arrow import read_table, write_table
from segmodels.formats.masks import MASK_SCHEMA, decode_masks, group_by_image, mask_row, mask_table

OPEN = ThingMaskSettings(
    min_score=0.0, min_area_share=0.0, max_area_share=1.0, max_overlap_iou=1.0, max_per_image=100
)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((10, 10), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def table(*rows: tuple[int, int, np.ndarray, float]):
    return mask_table(
        mask_row(image, instance, mask, score=score, source="maskcut", round=0)
        for image, instance, mask, score in rows
    )


def kept_ids(masks, chosen: ThingMaskSettings) -> list[int]:
    return select_things(masks, chosen).table["instance_id"].to_pylist()


def test_each_filter_counts_what_it_removed():
    masks = table(
        (1, 10, box(0, 0, 2, 2), 0.9),  # kept
        (1, 11, box(0, 0, 2, 2), 0.2),  # score
        (1, 12, box(5, 5, 1, 1), 0.9),  # 1 % of the image
        (1, 13, box(0, 0, 10, 10), 0.9),  # 100 %
        (1, 14, box(0, 0, 2, 3), 0.8),  # IoU 4/6 with instance 10
        (1, 15, box(6, 6, 2, 2), 0.7),  # third of two
        (1, 16, box(3, 3, 2, 2), 0.8),  # kept
        (2, 17, box(6, 6, 2, 2), 0.7),  # kept: another image
        (2, 18, box(8, 0, 2, 10), 0.9),  # 12 of the 36 pixels along the border
    )
    chosen = ThingMaskSettings(
        min_score=0.5,
        min_area_share=0.02,
        max_area_share=0.9,
        max_border_share=0.3,
        max_overlap_iou=0.5,
        max_per_image=2,
    )
    selection = select_things(masks, chosen)
    assert selection.table["instance_id"].to_pylist() == [10, 16, 17]
    assert selection.removed == {
        "min_score": 1,
        "min_area_share": 1,
        "max_area_share": 1,
        "max_border_share": 1,
        "max_overlap_iou": 1,
        "max_per_image": 1,
    }
    assert selection.table.schema == MASK_SCHEMA


def test_limits_themselves_pass():
    masks = table((1, 1, box(0, 0, 1, 2), 0.5), (1, 2, box(2, 0, 1, 4), 0.5))
    chosen = ThingMaskSettings(min_score=0.5, min_area_share=0.02, max_area_share=0.04)
    assert kept_ids(masks, chosen) == [1, 2]
    half = table((1, 1, box(0, 0, 2, 2), 0.9), (1, 2, box(0, 0, 2, 4), 0.8))  # IoU is 0.5
    assert kept_ids(half, ThingMaskSettings(max_overlap_iou=0.5)) == [1, 2]


def test_border_shares_count_each_outermost_pixel_once():
    masks = np.stack([box(0, 0, 10, 10), box(1, 1, 8, 8), box(0, 0, 1, 10), box(0, 0, 3, 3)])
    assert border_shares(masks) == pytest.approx([1, 0, 10 / 36, 5 / 36])


def test_of_equal_scores_the_lower_id_wins_and_a_removed_mask_removes_nothing():
    same = table((1, 8, box(0, 0, 3, 3), 0.5), (1, 7, box(0, 0, 3, 3), 0.5))
    assert kept_ids(same, ThingMaskSettings(max_overlap_iou=0.5)) == [7]
    # 2 falls to 1; 3 overlaps 2 but not 1, so it stays.
    chain = table(
        (1, 1, box(0, 0, 4, 4), 0.9), (1, 2, box(0, 1, 4, 4), 0.8), (1, 3, box(0, 2, 4, 4), 0.7)
    )
    assert kept_ids(chain, ThingMaskSettings(max_overlap_iou=0.5)) == [1, 3]


def test_row_order_is_kept_whatever_the_scores():
    masks = table(
        (2, 1, box(0, 0, 2, 2), 0.1), (1, 2, box(0, 0, 2, 2), 0.9), (2, 3, box(5, 5, 2, 2), 0.8)
    )
    assert kept_ids(masks, OPEN) == [1, 2, 3]


def test_an_empty_table_stays_empty():
    selection = select_things(MASK_SCHEMA.empty_table(), ThingMaskSettings())
    assert selection.table.num_rows == 0
    assert set(selection.removed.values()) == {0}


def test_no_mask_is_decoded_where_no_filter_needs_it():
    broken = table((1, 1, box(0, 0, 2, 2), 0.9), (1, 2, box(0, 0, 2, 2), 0.8))
    codes = pa.array([b"no code", b"no code"], pa.large_binary())
    column = broken.schema.get_field_index("rle_counts")
    assert kept_ids(broken.set_column(column, "rle_counts", codes), OPEN) == [1, 2]


def test_a_shard_holds_the_things_of_its_training_images(tmp_path):
    masks = table(
        (1, 10, box(0, 0, 3, 3), 0.9), (2, 20, box(0, 0, 3, 3), 0.9), (3, 30, box(0, 0, 3, 3), 0.1)
    )
    write_table(masks, tmp_path / "found.arrow")
    work = ThingMaskShard([1, 3], tmp_path / "found.arrow", ThingMaskSettings(min_score=0.5))
    counts = thing_mask_shard(work, tmp_path)
    assert read_table(tmp_path / "masks.arrow")["instance_id"].to_pylist() == [10]
    assert (counts["masks"], counts["min_score"], counts["max_overlap_iou"]) == (1, 1, 0)


def test_settings_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="min_area_share <= max_area_share"):
        ThingMaskSettings(min_area_share=0.5, max_area_share=0.1)
    with pytest.raises(ValueError, match="max_overlap_iou"):
        ThingMaskSettings(max_overlap_iou=1.5)
    with pytest.raises(ValueError, match="max_per_image"):
        ThingMaskSettings(max_per_image=0)


@given(
    boxes=st.lists(
        st.tuples(
            st.integers(1, 2),
            st.integers(0, 7),
            st.integers(0, 7),
            st.integers(1, 6),
            st.sampled_from([0.3, 0.5, 0.9]),
        ),
        max_size=8,
    ),
    limit=st.sampled_from([0.0, 0.3, 0.7]),
)
@settings(max_examples=30, deadline=None)
def test_no_two_kept_masks_overlap_and_every_lost_one_met_a_better(boxes, limit):
    masks = table(
        *((image, i, box(y, x, s, s), score) for i, (image, y, x, s, score) in enumerate(boxes))
    )
    chosen = ThingMaskSettings(min_area_share=0.0, max_area_share=1.0, max_overlap_iou=limit)
    kept = set(kept_ids(masks, chosen))
    for rows in group_by_image(masks).values():
        ids, scores = rows["instance_id"].to_pylist(), rows["score"].to_pylist()
        overlaps = mask_iou(decode_masks(rows), decode_masks(rows))
        for i, own in enumerate(ids):
            rivals = [j for j, other in enumerate(ids) if other in kept and j != i]
            if own in kept:
                assert all(overlaps[i, j] <= limit for j in rivals)
            else:
                assert any(
                    overlaps[i, j] > limit and (-scores[j], ids[j]) < (-scores[i], own)
                    for j in rivals
                )
