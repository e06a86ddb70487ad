"""What every adjacency storage must do: one table of hand-checked cases, one set of properties."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_graphs import BITS, DenseStorage

from kernels.backend import to_numpy
from kernels.ncut.adjacency import cosine_adjacency
from kernels.ncut.adjacency_cpu import BitAdjacency

KEYS = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 12), st.integers(1, 5)), elements=st.integers(-3, 3)
)
TAUS = st.sampled_from([-0.55, -0.1, 0.0, 0.15, 0.77])
FEW = settings(max_examples=30, deadline=None)


def connected(storage, keys, tau):
    return storage.of_keys(np.asarray(keys)[None], tau).dense(0)


def symmetric(size, density, seed=0):
    upper = np.triu(np.random.default_rng(seed).random((size, size)) < density)
    return upper | upper.T


def multiply(adjacency, vectors):
    return to_numpy(adjacency.matvec(adjacency.xp.asarray(vectors)))


@pytest.mark.parametrize(
    ("keys", "tau", "expected"),
    [
        (
            [[1.0, 0.0], [2.0, 2.0], [0.0, 5.0], [-1.0, 0.0]],
            0.5,
            [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]],
        ),
        ([[1.0, 0.0], [0.0, 1.0]], 0.0, [[1, 0], [0, 1]]),
        ([[1.0, 0.0], [0.0, 1.0]], -1e-6, [[1, 1], [1, 1]]),
        ([[0.0, 0.0], [1.0, 0.0]], 0.15, [[0, 0], [0, 1]]),
        ([[0.0, 0.0], [1.0, 0.0]], -0.15, [[1, 1], [1, 1]]),
        ([[3.0]], 0.15, [[1]]),
        (np.full((2, 64), 6e4, np.float16), 0.9, [[1, 1], [1, 1]]),
    ],
    ids=["angles", "strict", "negative tau", "zero key", "zero key below", "one patch", "half"],
)
def test_cases_by_hand(storage, keys, tau, expected):
    np.testing.assert_array_equal(connected(storage, keys, tau), np.array(expected, bool))


@given(KEYS, TAUS)
@FEW
def test_adjacency_is_symmetric_and_ignores_key_lengths(storage, keys, tau):
    adjacency = connected(storage, keys, tau)
    lengths = 2.0 ** np.arange(len(keys))[:, None]

    np.testing.assert_array_equal(adjacency, adjacency.T)
    np.testing.assert_array_equal(adjacency, connected(storage, keys * lengths, tau))


@given(KEYS, TAUS)
@FEW
def test_storages_agree(keys, tau):
    np.testing.assert_array_equal(
        connected(DenseStorage(np), keys, tau), connected(BITS, keys, tau)
    )


@pytest.mark.parametrize("patches", [1, 7, 255, 256, 257, 300, 600])
def test_cosines_computed_in_parts_are_those_of_the_whole(storage, patches):
    # Integers: every cosine is rounded alike, however the product is cut.
    keys = np.random.default_rng(patches).integers(-3, 4, (patches, 9)).astype(np.float32)
    unit = keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-12)
    cosines = unit.astype(np.float64) @ unit.T.astype(np.float64)
    clear = np.abs(cosines - 0.15) > 1e-6

    np.testing.assert_array_equal(connected(storage, keys, 0.15)[clear], (cosines > 0.15)[clear])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_keys_must_be_finite_in_float32(storage, bad):
    keys = np.ones((4, 3))
    keys[2, 1] = bad

    with pytest.raises(ValueError, match="keys must be finite"):
        connected(storage, keys, 0.15)


@given(st.integers(1, 131), st.floats(0, 1), st.integers(0, 2**16))
@FEW
def test_matvec_is_the_matrix_product(storage, size, density, seed):
    matrix = symmetric(size, density, seed)
    vectors = np.random.default_rng(seed).standard_normal((1, size))

    adjacency = storage.of_matrices(matrix)

    assert adjacency.shape == (1, size)
    np.testing.assert_array_equal(adjacency.dense(0), matrix)
    np.testing.assert_allclose(multiply(adjacency, vectors), vectors @ matrix, atol=1e-11)


def test_images_of_a_batch_keep_their_own_adjacency(storage):
    matrices = [symmetric(20, density, seed) for seed, density in enumerate((0.1, 0.5, 0.9))]
    vectors = np.random.default_rng(0).standard_normal((3, 20))

    adjacency = storage.of_matrices(*matrices)
    products = multiply(adjacency, vectors)
    some = adjacency.take(np.array([2, 0]))

    for image, alone in enumerate(matrices):
        np.testing.assert_allclose(products[image], alone @ vectors[image], atol=1e-12)
    assert some.shape == (2, 20)
    np.testing.assert_array_equal(some.dense(0), matrices[2])
    np.testing.assert_array_equal(some.dense(1), matrices[0])
    np.testing.assert_allclose(multiply(some, vectors[[2, 0]]), products[[2, 0]], atol=1e-12)


def test_take_all_images(storage):
    matrices = [symmetric(9, 0.5, seed) for seed in range(2)]

    everything = storage.of_matrices(*matrices).take(np.arange(2))

    for image, matrix in enumerate(matrices):
        np.testing.assert_array_equal(everything.dense(image), matrix)


def test_the_array_module_chooses_the_storage(storage):
    keys = np.random.default_rng(3).integers(-4, 5, (1, 300, 16)).astype(np.float32)

    chosen = cosine_adjacency(keys, 0.15, storage.xp)

    assert isinstance(chosen, BitAdjacency) == (storage.xp is np)
    np.testing.assert_array_equal(chosen.dense(0), connected(storage, keys[0], 0.15))
