"""Mapping of clusters to classes, from a table of votes."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

UNMATCHED = -1

Table = NDArray[np.integer] | NDArray[np.floating]


def majority_vote(votes: Table) -> NDArray[np.int64]:
    """Map each cluster to the class with most votes; many clusters may share a class.

    This is what U2Seg's code calls Hungarian matching.

    Args:
        votes: (clusters, classes), not negative.

    Returns:
        (clusters,) int64: the class, the lowest of ties; -1 for a cluster without votes.
    """
    _check_votes(votes)
    if votes.size == 0:
        return np.full(len(votes), UNMATCHED, np.int64)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), UNMATCHED).astype(np.int64)


def one_to_one(votes: Table) -> NDArray[np.int64]:
    """Match classes and clusters one to one for most votes; map the other clusters by majority.

    This is the order of CUPS's evaluation (CVPR 2025). A pair without votes is no match: its
    cluster is one of the others.

    Args:
        votes: (clusters, classes), not negative.

    Returns:
        (clusters,) int64: the class, or -1 for a cluster without votes.
    """
    _check_votes(votes)
    assigned = hungarian(votes)
    rows = np.flatnonzero(assigned != UNMATCHED)
    assigned[rows[votes[rows, assigned[rows]] == 0]] = UNMATCHED
    return np.where(assigned == UNMATCHED, majority_vote(votes), assigned)


def hungarian(score: Table) -> NDArray[np.int64]:
    """Assign rows to columns one to one, for the largest sum of scores.

    Args:
        score: (rows, columns), finite.

    Returns:
        (rows,) int64: the column, or -1 where there are more rows than columns.
    """
    if score.ndim != 2:
        raise ValueError(f"score must be (rows, columns), got {score.shape}")
    if not np.isfinite(score).all():
        raise ValueError("score must be finite, got NaN or infinity")
    assigned = np.full(len(score), UNMATCHED, np.int64)
    rows, columns = linear_sum_assignment(score, maximize=True)
    assigned[rows] = columns
    return assigned


def _check_votes(votes: Table) -> None:
    if votes.ndim != 2:
        raise ValueError(f"votes must be (clusters, classes), got {votes.shape}")
    if (votes < 0).any() or not np.isfinite(votes).all():
        raise ValueError("votes must be finite and not negative")
