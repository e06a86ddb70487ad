"""The mask table and Arrow files."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from segmodels.formats.arrow import read_table, write_table
from segmodels.formats.masks import (
    MASK_SCHEMA,
    decode_masks,
    group_by_image,
    mask_row,
    mask_table,
)

MASKS = hnp.arrays(bool, st.tuples(st.integers(0, 5), st.just(7), st.just(5)))


def rows_of(masks, image_id=3):
    return [
        mask_row(image_id, index + 1, mask, score=0.5, source="maskcut", round=0)
        for index, mask in enumerate(masks)
    ]


def test_row_of_a_hand_drawn_mask():
    mask = np.zeros((6, 8), dtype=bool)
    mask[2:5, 1:7] = True
    mask[3, 3] = False

    row = mask_row(12, 4, mask, score=0.75, source="maskcut", round=2)

    assert row["bbox"] == [1, 2, 6, 3]
    assert row["area"] == 17
    assert (row["height"], row["width"]) == (6, 8)
    assert (row["image_id"], row["instance_id"], row["round"]) == (12, 4, 2)
    table = mask_table([row])
    assert table.schema.equals(MASK_SCHEMA)
    np.testing.assert_array_equal(decode_masks(table), mask[None])


def test_an_empty_mask_has_no_area_and_an_empty_box():
    row = mask_row(1, 1, np.zeros((4, 4), dtype=bool), score=1, source="maskcut", round=0)
    assert row["area"] == 0
    assert row["bbox"] == [0, 0, 0, 0]


@given(masks=MASKS)
@settings(max_examples=30, deadline=None)
def test_masks_come_back_and_boxes_are_tight(masks):
    table = mask_table(rows_of(masks))
    if len(masks):
        np.testing.assert_array_equal(decode_masks(table), masks)
    for mask, row in zip(masks, table.to_pylist(), strict=True):
        assert row["area"] == mask.sum()
        if mask.any():
            ys, xs = np.nonzero(mask)
            x, y, width, height = row["bbox"]
            assert (x, y) == (xs.min(), ys.min())
            assert (x + width - 1, y + height - 1) == (xs.max(), ys.max())
        coded = {"size": [7, 5], "counts": row["rle_counts"]}
        np.testing.assert_array_equal(coco_mask.decode(coded).astype(bool), mask)


def test_rows_of_several_sizes_do_not_become_one_array():
    rows = rows_of([np.eye(3, dtype=bool), np.eye(4, dtype=bool)])
    with pytest.raises(ValueError, match="share one size"):
        decode_masks(mask_table(rows))
    assert decode_masks(mask_table([])).shape == (0, 0, 0)


@given(ids=st.lists(st.integers(1, 4), max_size=12))
@settings(max_examples=30, deadline=None)
def test_grouping_keeps_every_row_in_its_order(ids):
    mask = np.ones((2, 2), dtype=bool)
    rows = [
        mask_row(image_id, index, mask, score=1, source="x", round=0)
        for index, image_id in enumerate(ids)
    ]
    groups = group_by_image(mask_table(rows))
    assert list(groups) == sorted(set(ids))
    for image_id, group in groups.items():
        expected = [index for index, other in enumerate(ids) if other == image_id]
        assert group["instance_id"].to_pylist() == expected


@given(masks=MASKS, cut=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_file_bytes_do_not_depend_on_how_the_table_was_put_together(tmp_path_factory, masks, cut):
    folder = tmp_path_factory.mktemp("arrow")
    whole = mask_table(rows_of(masks))
    parts = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    taken = whole.take(pa.array(range(whole.num_rows), pa.int64()))
    for name, table in {"whole": whole, "parts": parts, "taken": taken}.items():
        write_table(table, folder / f"{name}.arrow")
    contents = {path.read_bytes() for path in folder.glob("*.arrow")}
    assert len(contents) == 1
    assert read_table(folder / "whole.arrow").equals(whole)


def test_a_failing_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "masks.arrow"
    first = mask_table(rows_of([np.eye(3, dtype=bool)]))
    write_table(first, path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_table(mask_table([]), path)

    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["masks.arrow"]


@pytest.mark.parametrize("kept", [0, 5, 100, -8])
def test_a_cut_off_arrow_file_is_named(tmp_path, kept):
    path = tmp_path / "masks.arrow"
    write_table(mask_table(rows_of([np.eye(3, dtype=bool)])), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"masks\.arrow is not a whole Arrow file"):
        read_table(path)
