"""MaskCut's rules on hand-drawn eigenvectors, its published quirks included."""

import numpy as np
import pytest

from kernels.backend import CPU_ARRAYS
from kernels.ncut.foreground import choose_foreground, is_new_object


def chosen_from(eigenvector):
    return choose_foreground(eigenvector[None], CPU_ARRAYS)[0]


def drawing(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_the_side_of_the_peak_is_the_foreground():
    eigenvector = np.full((4, 4), -1.0)
    eigenvector[1:3, 1:3] = 3.0

    expected = drawing("....", ".##.", ".##.", "....")

    np.testing.assert_array_equal(chosen_from(eigenvector), expected)
    np.testing.assert_array_equal(chosen_from(-eigenvector), expected)


def test_a_side_with_three_corners_is_background():
    # The frame holds the peak and all corners; oriented by the peak, the corners reverse the cut.
    eigenvector = np.full((4, 4), 3.0)
    eigenvector[1:3, 1:3] = -1.0

    expected = drawing("....", ".##.", ".##.", "....")

    np.testing.assert_array_equal(chosen_from(eigenvector), expected)


def test_the_other_sign_can_choose_the_other_region():
    # As published: with this sign the frame lies below the mean and holds the peak, so the side
    # above the mean is reversed for the peak, and the frame wins despite its corners.
    eigenvector = np.full((4, 4), -3.0)
    eigenvector[1:3, 1:3] = 1.0

    expected = drawing("####", "#..#", "#..#", "####")

    np.testing.assert_array_equal(chosen_from(eigenvector), expected)


@pytest.mark.parametrize(("corners", "object_is_above"), [(2, True), (3, False)])
def test_two_corners_are_allowed(corners, object_is_above):
    above = np.zeros((5, 5), bool)
    above[:2, :] = True
    above[2:, 0] = corners == 3
    eigenvector = np.where(above, 1.0, -0.5)
    eigenvector[0, 2] = 4.0

    chosen = chosen_from(eigenvector)

    np.testing.assert_array_equal(chosen, above if object_is_above else ~above)


def test_only_the_part_with_the_seed_is_kept():
    above = drawing(
        ".....",
        ".##..",
        ".##..",
        "...##",
        ".....",
    )
    eigenvector = np.where(above, 1.0, -0.5)
    eigenvector[3, 4] = 2.0

    chosen = chosen_from(eigenvector)

    # Neighbours by an edge, not by a corner.
    np.testing.assert_array_equal(chosen, drawing(".....", ".....", ".....", "...##", "....."))


def test_of_equal_seeds_the_first_counts():
    eigenvector = np.where(drawing(".....", ".#.#.", "....."), 2.0, -0.1)

    np.testing.assert_array_equal(chosen_from(eigenvector), drawing(".....", ".#...", "....."))


def test_images_are_judged_one_by_one():
    # The second's object touches the border that it shares with the third in memory.
    eigenvectors = np.full((3, 4, 5), -1.0)
    eigenvectors[0, 1:3, 1:3] = 3.0
    eigenvectors[1, 2:, 3] = 3.0
    eigenvectors[2, :2, 3] = 3.0

    together = choose_foreground(eigenvectors, CPU_ARRAYS)

    for eigenvector, mask in zip(eigenvectors, together, strict=True):
        np.testing.assert_array_equal(mask, eigenvector > 0)
        np.testing.assert_array_equal(mask, chosen_from(eigenvector))


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 2), (2, 3)])
def test_narrow_grids(shape):
    eigenvector = np.linspace(-1.0, 2.0, shape[0] * shape[1]).reshape(shape)

    chosen = chosen_from(eigenvector)

    assert chosen.shape == shape
    assert chosen[-1, -1]
    assert not chosen.all()


@pytest.mark.parametrize(("patches", "kept"), [(1, False), (2, True)])
def test_one_hundredth_of_the_grid_is_too_small(patches, kept):
    mask = np.zeros((10, 10), bool)
    mask.flat[:patches] = True

    assert is_new_object(mask[None], np.zeros((1, 10, 10), bool)).tolist() == [kept]


@pytest.mark.parametrize(
    ("overlap", "kept"), [(0, True), (10, True), (11, False), (15, False)], ids=str
)
def test_more_than_half_overlap_is_a_repetition(overlap, kept):
    # 15 patches each; IoU is overlap / (30 - overlap), exactly one half at 10.
    mask, previous = np.zeros((2, 6, 6), bool)
    mask.flat[:15] = True
    previous.flat[15 - overlap : 30 - overlap] = True

    assert is_new_object(mask[None], previous[None]).tolist() == [kept]
