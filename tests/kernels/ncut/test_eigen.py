"""The eigensolver: analytic spectra, LAPACK's generalised solver, and graphs without a gap."""

import numpy as np
import pytest
import scipy.linalg
from patch_graphs import BITS, graph_of

from kernels.backend import to_numpy
from kernels.ncut.adjacency import cosine_adjacency
from kernels.ncut.affinity import PatchGraphs
from kernels.ncut.eigen import largest_entry_positive, second_smallest

EPS = 1e-5


def blocks(*sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return labels[:, None] == labels[None, :]


def affinity_of(adjacency, eps=EPS):
    return np.where(adjacency, 1.0, eps)


def residual_of(adjacency, pair, eps=EPS):
    affinity = affinity_of(adjacency, eps)
    degrees = affinity.sum(axis=1)
    left = degrees * pair.vectors[0] - affinity @ pair.vectors[0]
    # Scaled as the symmetric problem is, where the solver's promise holds.
    return np.linalg.norm((left - pair.values[0] * degrees * pair.vectors[0]) / np.sqrt(degrees))


def noisy_neighbours(size, seed):
    """A graph as images give it: near patches connected, and some far ones."""
    rng = np.random.default_rng(seed)
    places = np.arange(size)
    near = np.abs(places[:, None] - places[None, :]) < max(2, size // 6)
    far = np.triu(rng.random((size, size)) < 0.05)
    return near | far | far.T


@pytest.mark.parametrize(("first", "second"), [(5, 3), (40, 60), (1, 30)])
def test_two_blocks_analytically(first, second):
    pair = second_smallest(graph_of(blocks(first, second)))

    # Constant on each block: with degrees a = m + n eps, b = n + m eps the cut value is
    # n eps / a + m eps / b, and x is n b against -m a (D-orthogonal to ones).
    degree_a, degree_b = first + second * EPS, second + first * EPS
    expected = second * EPS / degree_a + first * EPS / degree_b
    np.testing.assert_allclose(pair.values[0], expected, rtol=1e-8)
    ratio = -(second * degree_b) / (first * degree_a)
    np.testing.assert_allclose(pair.vectors[0][:first], pair.vectors[0][0], rtol=1e-8)
    np.testing.assert_allclose(pair.vectors[0][first:], pair.vectors[0][-1], rtol=1e-8)
    np.testing.assert_allclose(pair.vectors[0][0] / pair.vectors[0][-1], ratio, rtol=1e-8)
    assert not pair.is_dense[0]


@pytest.mark.parametrize("size", [2, 3, 10, 120, 300])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_agrees_with_lapacks_generalised_solver(size, eps):
    adjacency = noisy_neighbours(size, seed=size)
    affinity = affinity_of(adjacency, eps)
    degrees = np.diag(affinity.sum(axis=1))
    values, vectors = scipy.linalg.eigh(degrees - affinity, degrees, subset_by_index=[1, 1])

    pair = second_smallest(graph_of(adjacency, eps))

    np.testing.assert_allclose(pair.values[0], values[0], atol=1e-12)
    reference = vectors[:, 0] * np.sign(vectors[:, 0] @ pair.vectors[0])
    np.testing.assert_allclose(pair.vectors[0], reference, atol=1e-7 * np.abs(reference).max())
    np.testing.assert_allclose(pair.vectors[0] @ degrees @ pair.vectors[0], 1.0)


@pytest.mark.parametrize(
    ("adjacency", "value"),
    [
        # All alike: the normalised affinity has rank one, every other lambda is 1.
        (np.ones((30, 30), bool), 1.0),
        # No two alike: lambda = n eps / (1 + (n - 1) eps), n - 1 times.
        (np.eye(30, dtype=bool), 30 * EPS / (1 + 29 * EPS)),
        # Every key zero.
        (np.zeros((30, 30), bool), 1.0),
        # Four equal blocks: lambda = n eps / (10 + 30 eps), three times.
        (blocks(10, 10, 10, 10), 40 * EPS / (10 + 30 * EPS)),
    ],
    ids=["all alike", "none alike", "all zero", "equal blocks"],
)
def test_repeated_eigenvalues(adjacency, value):
    pair = second_smallest(graph_of(adjacency))

    np.testing.assert_allclose(pair.values[0], value, rtol=1e-9)
    assert residual_of(adjacency, pair) < 1e-10
    assert not pair.is_dense[0]


def test_nearly_equal_blocks_are_separated():
    # Three eigenvalues within 1e-5 of 0, apart by less than 1e-6.
    adjacency = blocks(40, 41, 39, 45)
    affinity = affinity_of(adjacency)
    degrees = np.diag(affinity.sum(axis=1))
    expected = scipy.linalg.eigh(
        degrees - affinity, degrees, subset_by_index=[1, 1], eigvals_only=True
    )

    pair = second_smallest(graph_of(adjacency))

    np.testing.assert_allclose(pair.values[0], expected[0], rtol=1e-8)
    assert residual_of(adjacency, pair) < 1e-10


def test_a_painted_patch_follows_the_mean():
    # A patch of no similarity has x = mean(x) / (1 - lambda): the reason why painted patches
    # fall on the foreground's side.
    painted = np.zeros((1, 60), bool)
    painted[0, [3, 50]] = True

    pair = second_smallest(graph_of(noisy_neighbours(60, seed=0), painted=painted))

    x = pair.vectors[0]
    np.testing.assert_allclose(x[[3, 50]], x.mean() / (1 - pair.values[0]))


def test_the_dense_solver_takes_over_and_is_reported():
    graph = graph_of(noisy_neighbours(120, seed=1))

    iterative, dense = second_smallest(graph), second_smallest(graph, max_steps=3)

    assert not iterative.is_dense[0]
    assert dense.is_dense[0]
    np.testing.assert_allclose(dense.values, iterative.values, atol=1e-12)
    np.testing.assert_allclose(
        largest_entry_positive(dense.vectors), largest_entry_positive(iterative.vectors), atol=1e-8
    )


def test_only_the_image_that_fails_is_solved_densely():
    # All alike converges at once; noise needs more than three steps.
    adjacency = BITS.of_matrices(np.ones((60, 60), bool), noisy_neighbours(60, seed=1))

    pairs = second_smallest(PatchGraphs(adjacency, EPS), max_steps=3)

    assert pairs.is_dense.tolist() == [False, True]
    np.testing.assert_allclose(pairs.values[0], 1.0)


def test_eigenpairs_do_not_depend_on_the_batch(storage):
    # They exhaust their spaces after different numbers of steps: 1, 3 and many.
    adjacencies = [np.ones((90, 90), bool), blocks(40, 20, 25, 5), noisy_neighbours(90, seed=5)]

    together = second_smallest(PatchGraphs(storage.of_matrices(*adjacencies), EPS))

    for image, adjacency in enumerate(adjacencies):
        alone = second_smallest(graph_of(adjacency, storage=storage))
        assert alone.values[0] == together.values[image]
        assert to_numpy(alone.vectors[0]).tobytes() == to_numpy(together.vectors[image]).tobytes()


def test_every_storage_gives_the_same_vector(storage):
    adjacency = noisy_neighbours(300, seed=2)

    bits, ours = (second_smallest(graph_of(adjacency, storage=each)) for each in (BITS, storage))

    np.testing.assert_allclose(bits.values, ours.values, atol=1e-12)
    atol = 1e-9 if storage.xp is np else 1e-7
    np.testing.assert_allclose(bits.vectors, to_numpy(ours.vectors), atol=atol)


def test_same_graph_same_bits():
    keys = np.random.default_rng(4).standard_normal((1, 400, 8)).astype(np.float32)
    adjacency = cosine_adjacency(keys, 0.15, np)

    first, second = (second_smallest(PatchGraphs(adjacency, EPS)) for _ in range(2))

    assert first.vectors.tobytes() == second.vectors.tobytes()


def test_one_patch_is_refused():
    with pytest.raises(ValueError, match="at least two patches"):
        second_smallest(graph_of(np.ones((1, 1), bool)))


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ([1.0, -3.0, 2.0], [-1.0, 3.0, -2.0]),
        ([1.0, 3.0, -2.0], [1.0, 3.0, -2.0]),
        ([-2.0, 0.0, 2.0], [2.0, 0.0, -2.0]),
        # Equal but for rounding: still the first.
        ([2.0, 0.0, -2.0 - 1e-12], [2.0, 0.0, -2.0 - 1e-12]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ],
)
def test_sign_rule(vector, expected):
    np.testing.assert_array_equal(largest_entry_positive(np.array([vector])), [expected])
