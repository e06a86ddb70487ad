"""Components and holes: drawn by hand, and against SciPy's own hole filling."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from kernels.backend import CPU_ARRAYS
from kernels.morphology import components_at, fill_holes


def drawing(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_only_enclosed_background_is_filled():
    mask = drawing(
        "#####..",
        "#.#.#.#",
        "###.###",
        "..#.#..",
    )
    expected = drawing(
        "#####..",
        "###.#.#",
        "###.###",
        "..#.#..",
    )

    np.testing.assert_array_equal(fill_holes(mask[None])[0], expected)


def test_background_does_not_leak_through_diagonals():
    ring = drawing(".#.", "#.#", ".#.")

    np.testing.assert_array_equal(fill_holes(ring[None])[0], drawing(".#.", "###", ".#."))


@given(hnp.arrays(bool, st.tuples(st.just(2), st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=30, deadline=None)
def test_fill_holes_agrees_with_scipy(masks):
    expected = np.stack([ndimage.binary_fill_holes(mask) for mask in masks])

    np.testing.assert_array_equal(fill_holes(masks), expected)


def test_fill_holes_leaves_its_input_alone():
    masks = np.ones((1, 3, 3), bool)
    masks[0, 1, 1] = False

    assert fill_holes(masks).all()
    assert not masks[0, 1, 1]


def test_fill_holes_of_nothing():
    assert not fill_holes(np.zeros((2, 4, 5), bool)).any()
    assert fill_holes(np.zeros((0, 4, 5), bool)).shape == (0, 4, 5)


def test_fill_holes_names_the_expected_shape():
    with pytest.raises(ValueError, match=r"masks must be \(m, H, W\) bool, got \(4, 5\)"):
        fill_holes(np.zeros((4, 5), bool))


def test_component_stops_at_diagonals():
    mask = drawing("##..", ".#..", "..##")

    np.testing.assert_array_equal(
        components_at(mask[None], np.array([0]), CPU_ARRAYS)[0], drawing("##..", ".#..", "....")
    )


def test_component_needs_a_seed_inside():
    with pytest.raises(ValueError, match="seeds must lie inside their masks"):
        components_at(drawing("#.")[None], np.array([1]), CPU_ARRAYS)
