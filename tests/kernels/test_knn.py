import numpy as np
import pytest

from kernels.errors import TooFewPointsError
from kernels.knn import nearest_neighbours


def brute_force(features, k):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("rows", "width", "k"), [(2, 3, 1), (10, 4, 9), (300, 32, 7)])
def test_agrees_with_brute_force(rows, width, k):
    # Lengths differ: only the direction counts.
    rng = np.random.default_rng(rows)
    features = rng.normal(size=(rows, width)) * rng.uniform(0.1, 9, (rows, 1))
    neighbours = nearest_neighbours(features, k)
    assert neighbours.dtype == np.int64
    np.testing.assert_array_equal(neighbours, brute_force(features, k))


def test_known_neighbours():
    degrees = np.radians([0, 10, 25, 90])
    features = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    expected = [[1, 2], [0, 2], [1, 0], [2, 1]]
    np.testing.assert_array_equal(nearest_neighbours(features, 2), expected)


def test_ties_take_the_lower_number_first():
    features = np.tile(np.eye(2), (4, 1))  # rows 0, 2, 4, 6 are equal, and so are 1, 3, 5, 7
    expected = [[2, 4, 6], [3, 5, 7], [0, 4, 6], [1, 5, 7]]
    np.testing.assert_array_equal(nearest_neighbours(features, 3)[:4], expected)


def test_a_row_among_many_copies_is_not_its_own_neighbour():
    features = np.ones((50, 3))
    neighbours = nearest_neighbours(features, 4)
    assert (neighbours != np.arange(50)[:, None]).all()
    assert all(len(set(row)) == 4 for row in neighbours.tolist())


def test_zero_rows_are_allowed():
    features = np.array([[0.0, 0], [1, 0], [1, 0.1], [0, 0]])
    neighbours = nearest_neighbours(features, 2)
    assert neighbours[1, 0] == 2
    assert (neighbours != np.arange(4)[:, None]).all()


def test_input_stays_untouched():
    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    before = features.copy()
    first = nearest_neighbours(features, 5)
    np.testing.assert_array_equal(features, before)
    np.testing.assert_array_equal(first, nearest_neighbours(features, 5))


def test_wrong_input_is_refused():
    with pytest.raises(TooFewPointsError, match="7 neighbours need at least 8 rows, got 7"):
        nearest_neighbours(np.ones((7, 2)), 7)
    with pytest.raises(ValueError, match="k must be at least 1"):
        nearest_neighbours(np.ones((7, 2)), 0)
    with pytest.raises(ValueError, match=r"must be \(n, d\)"):
        nearest_neighbours(np.ones(7), 1)
    with pytest.raises(ValueError, match="finite"):
        nearest_neighbours(np.array([[np.nan], [1.0]]), 1)
