from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kernels.matching import hungarian, majority_vote, one_to_one

VOTES = arrays(
    np.int64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 9)
)


def best_total(score):
    """The best sum over one-to-one assignments, by trying all of them."""
    rows, columns = score.shape
    if rows > columns:
        return best_total(score.T)
    return max(score[range(rows), choice].sum() for choice in permutations(range(columns), rows))


@settings(max_examples=30, deadline=None)
@given(VOTES)
def test_hungarian_is_optimal(score):
    assigned = hungarian(score)
    rows = np.flatnonzero(assigned >= 0)
    assert len(rows) == min(score.shape)
    assert len(set(assigned[rows].tolist())) == len(rows)
    assert score[rows, assigned[rows]].sum() == best_total(score)


@settings(max_examples=30, deadline=None)
@given(VOTES)
def test_one_to_one_is_hungarian_first(votes):
    matched = one_to_one(votes)
    best_per_class = np.zeros(votes.shape[1], np.int64)
    for cluster, category in enumerate(matched.tolist()):
        if not votes[cluster].any():
            assert category == -1
        else:
            assert votes[cluster, category] > 0
            best_per_class[category] = max(best_per_class[category], votes[cluster, category])
    # Each class keeps at least what the optimal assignment gave it.
    assert best_per_class.sum() >= best_total(votes)


@settings(max_examples=30, deadline=None)
@given(VOTES)
def test_majority_vote_is_the_row_maximum(votes):
    for row, category in zip(votes.tolist(), majority_vote(votes).tolist(), strict=True):
        assert category == (row.index(max(row)) if any(row) else -1)


def test_hand_worked_table():
    votes = np.array(
        [
            [9, 8, 0],  # prefers class 0, but class 1 has no other cluster
            [7, 0, 0],
            [0, 0, 0],  # saw nothing
            [2, 1, 0],  # left over
            [0, 0, 3],
        ]
    )
    np.testing.assert_array_equal(majority_vote(votes), [0, 0, -1, 0, 2])
    np.testing.assert_array_equal(one_to_one(votes), [1, 0, -1, 0, 2])
    np.testing.assert_array_equal(hungarian(votes), [1, 0, -1, -1, 2])


def test_a_pair_without_votes_is_no_match():
    # The assignment must give cluster 1 the class 1, which it never saw.
    votes = np.array([[5, 0], [4, 0]])
    np.testing.assert_array_equal(one_to_one(votes), [0, 0])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_tables(shape):
    votes = np.zeros(shape, np.int64)
    for match in (majority_vote, one_to_one, hungarian):
        np.testing.assert_array_equal(match(votes), np.full(shape[0], -1))


def test_wrong_tables_are_refused():
    for match in (majority_vote, one_to_one):
        with pytest.raises(ValueError, match="clusters, classes"):
            match(np.zeros(3))
        with pytest.raises(ValueError, match="not negative"):
            match(np.array([[1, -1]]))
        with pytest.raises(ValueError, match="finite"):
            match(np.array([[1, np.nan]]))
    with pytest.raises(ValueError, match="rows, columns"):
        hungarian(np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        hungarian(np.array([[np.nan]]))
