"""The merge of things and stuff, by hand on small maps and by its invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodels.u2seg.labels import (
    SEMANTIC_VOID,
    LabelSettings,
    Things,
    merge_image,
    paint,
    semantic_map,
)

K = 5


def grid(text: str) -> np.ndarray:
    """A small map: digits are values, a dot is -1."""
    return np.array([[-1 if c == "." else int(c) for c in line] for line in text.split()])


def things(*drawings: str, clusters=None, scores=None) -> Things:
    """Masks from drawings in which # is inside."""
    masks = np.array([[[c == "#" for c in line] for line in d.split()] for d in drawings])
    n = len(drawings)
    return Things(
        masks.reshape(n, 4, 4),
        np.arange(n) if clusters is None else np.array(clusters),
        np.ones(n) if scores is None else np.array(scores),
    )


def categories(merged) -> np.ndarray:
    """Category at each pixel, 0 for void."""
    values = np.zeros(len(merged.segments) + 1, dtype=int)
    for segment in merged.segments:
        values[segment.id] = segment.category_id
    return values[merged.segment_map]


def test_thing_else_stuff_else_void():
    merged = merge_image(
        things("##.. ##.. .... ....", clusters=[3]), grid("0000 0000 11.. 11.."), K, LabelSettings()
    )
    # Thing cluster 3 is category 4; stuff 0 and 1 are categories 6 and 7; the rest is void.
    np.testing.assert_array_equal(categories(merged), grid("4466 4466 7700 7700"))
    np.testing.assert_array_equal(merged.segment_map, grid("1122 1122 3300 3300"))
    assert merged.segment_map.dtype == np.int32
    semantic = semantic_map(merged, K)
    np.testing.assert_array_equal(semantic[:2], grid("0011 0011"))
    np.testing.assert_array_equal(semantic[2], [2, 2, SEMANTIC_VOID, SEMANTIC_VOID])
    assert semantic.dtype == np.uint8


def test_smaller_boxes_are_painted_on_top_whatever_the_rows():
    large, small = "#### #### #### ....", "##.. ##.. .... ...."
    for drawn, expected in (((large, small), "22"), ((small, large), "11")):
        merged = merge_image(things(*drawn), grid(".... .... .... ...."), K, LabelSettings())
        assert "".join(map(str, merged.segment_map[0, :2])) == expected


def test_the_box_counts_not_the_mask():
    # The L has the larger box (16 against 9) and the smaller mask (7 against 9).
    angle, block = "#... #... #... ####", "###. ###. ###. ...."
    empty = grid(".... .... .... ....")
    by_box = merge_image(things(angle, block), empty, K, LabelSettings())
    np.testing.assert_array_equal(categories(by_box)[:, 0], [2, 2, 2, 1])
    by_mask = LabelSettings(painting_order="mask_area_descending")
    by_mask = merge_image(things(angle, block), empty, K, by_mask)
    np.testing.assert_array_equal(categories(by_mask)[:, 0], [1, 1, 1, 1])


def test_score_order_puts_the_best_on_top():
    pair = things("##.. ##.. .... ....", "#### #### .... ....", scores=[0.4, 0.9])
    np.testing.assert_array_equal(paint(pair, "score_ascending")[0], [1, 1, 1, 1])
    np.testing.assert_array_equal(paint(pair, "box_area_descending")[0], [0, 0, 1, 1])


def test_equal_boxes_are_painted_in_row_order():
    pair = things("##.. ##.. .... ....", "##.. ##.. .... ....")
    for order in ("box_area_descending", "mask_area_descending", "score_ascending"):
        assert (paint(pair, order)[:2, :2] == 1).all()


def test_a_hidden_thing_has_no_segment():
    covered = things("##.. .... .... ....", "##.. .... .... ....", clusters=[4, 2])
    merged = merge_image(covered, grid(".... .... .... ...."), K, LabelSettings())
    assert merged.thing_rows == [1]
    assert [(s.id, s.category_id) for s in merged.segments] == [(1, 3)]


@pytest.mark.parametrize(
    ("width", "kept"),
    [(6, True), (7, True), (8, False), (10, False)],  # covered tenths of a class of ten pixels
)
def test_seventy_percent_rule(width: int, kept: bool):
    mask = np.zeros((1, 2, 10), dtype=bool)
    mask[0, 0, :width] = True
    stuff = np.stack([np.zeros(10, int), np.ones(10, int)])
    merged = merge_image(Things(mask, np.array([0]), np.ones(1)), stuff, K, LabelSettings())
    assert {s.category_id for s in merged.segments} == ({1, 6, 7} if kept else {1, 7})
    np.testing.assert_array_equal(merged.segment_map[0, width:] == 0, not kept)


def test_without_the_rule_any_visible_pixel_keeps_its_class():
    mask = np.zeros((1, 1, 10), dtype=bool)
    mask[0, 0, :9] = True
    row = Things(mask, np.array([0]), np.ones(1))
    stuff = np.zeros((1, 10), dtype=int)
    merged = merge_image(row, stuff, K, LabelSettings(stuff_cover_limit=None))
    assert [s.category_id for s in merged.segments] == [1, 6]
    mask[0, 0, 9] = True
    merged = merge_image(row, stuff, K, LabelSettings(stuff_cover_limit=None))
    assert [s.category_id for s in merged.segments] == [1]


def test_one_segment_a_stuff_class_even_in_pieces():
    merged = merge_image(things(), grid("0110 0110 0110 0110"), K, LabelSettings())
    assert [s.category_id for s in merged.segments] == [6, 7]
    np.testing.assert_array_equal(merged.segment_map, grid("1221 1221 1221 1221"))


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="differ in size"):
        merge_image(things(), np.zeros((3, 4), int), K, LabelSettings())
    with pytest.raises(ValueError, match=r"cluster ids must be in \[0, 5\)"):
        merge_image(
            things("#... .... .... ....", clusters=[5]),
            grid("0000 0000 0000 0000"),
            K,
            LabelSettings(),
        )
    with pytest.raises(ValueError, match="painting_order"):
        paint(things(), "largest")
    with pytest.raises(ValueError, match="stuff_cover_limit"):
        LabelSettings(stuff_cover_limit=1.5)


@st.composite
def scenes(draw):
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    n = draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = rng.random((n, height, width)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    stuff = rng.integers(-1, 3, size=(height, width))
    return Things(masks, rng.integers(0, K, n), rng.random(n)), stuff


@given(
    scene=scenes(),
    order=st.sampled_from(["box_area_descending", "mask_area_descending", "score_ascending"]),
    limit=st.sampled_from([None, 0.0, 0.5, 0.7, 1.0]),
)
@settings(max_examples=30, deadline=None)
def test_every_pixel_follows_equation_5(scene, order, limit):
    drawn, stuff = scene
    merged = merge_image(
        drawn, stuff, K, LabelSettings(painting_order=order, stuff_cover_limit=limit)
    )
    category = categories(merged)
    covered = drawn.masks.any(axis=0)
    assert (category[covered] >= 1).all()
    assert (category[covered] <= K).all()
    rest = category[~covered]
    assert ((rest == 0) | (rest == stuff[~covered] + K + 1)).all()
    assert (category[(stuff < 0) & ~covered] == 0).all()
    # Ids are 1..n, each has pixels, and each thing segment lies inside its mask.
    assert set(np.unique(merged.segment_map)) - {0} == {s.id for s in merged.segments}
    assert [s.id for s in merged.segments] == list(range(1, len(merged.segments) + 1))
    for row, segment in zip(merged.thing_rows, merged.segments, strict=False):
        assert drawn.masks[row][merged.segment_map == segment.id].all()
    stuff_categories = [s.category_id for s in merged.segments if s.category_id > K]
    assert len(stuff_categories) == len(set(stuff_categories))
    if limit is None:
        assert set(stuff_categories) == set(stuff[~covered & (stuff >= 0)] + K + 1)
