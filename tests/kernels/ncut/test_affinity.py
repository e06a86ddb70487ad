"""The affinity as an operator, against the matrix itself, on every adjacency storage."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_graphs import graph_of

from kernels.backend import to_numpy

KEYS = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 12), st.integers(1, 5)), elements=st.integers(-3, 3)
)


def symmetric(size, density):
    upper = np.triu(np.random.default_rng(0).random((size, size)) < density)
    return upper | upper.T


@given(KEYS, st.sampled_from([-0.4, 0.0, 0.15]), st.integers(0, 2**12 - 1))
@settings(max_examples=30, deadline=None)
def test_painting_is_setting_keys_to_zero(storage, keys, tau, bits):
    xp = storage.xp
    painted = np.array([bits >> patch & 1 for patch in range(len(keys))], bool)
    zeroed = np.where(painted[:, None], np.float32(0), keys)

    def connected(keys):
        return storage.of_keys(keys[None], tau).dense(0)

    graph = graph_of(
        connected(keys),
        0.5,
        storage,
        painted=xp.asarray(painted[None]),
        painted_connected=tau < 0.0,
    )

    expected = np.where(connected(zeroed), 1.0, 0.5)
    np.testing.assert_array_equal(graph.dense_affinity(0), expected)
    columns = [to_numpy(graph.apply(xp.asarray(unit[None])))[0] for unit in np.eye(len(keys))]
    np.testing.assert_allclose(np.stack(columns), expected, atol=1e-14)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 131])
def test_products_agree_with_the_written_affinity(storage, size):
    eps = 1e-3
    adjacency = symmetric(size, 0.3)
    affinity = np.where(adjacency, 1.0, eps)
    degrees = affinity.sum(axis=1)
    vector = np.random.default_rng(1).standard_normal((1, size))
    on_device = storage.xp.asarray(vector)

    graph = graph_of(adjacency, eps, storage)

    np.testing.assert_allclose(to_numpy(graph.degrees)[0], degrees, rtol=1e-13)
    np.testing.assert_allclose(to_numpy(graph.apply(on_device)), vector @ affinity, atol=1e-12)
    normalised = affinity / np.sqrt(np.outer(degrees, degrees))
    np.testing.assert_allclose(
        to_numpy(graph.apply_normalised(on_device)), vector @ normalised, atol=1e-12
    )
    np.testing.assert_allclose(graph.dense_normalised(0), normalised, atol=1e-15)


def test_the_trivial_vector_is_an_eigenvector_of_value_one(storage):
    graph = graph_of(symmetric(50, 0.1), storage=storage)

    trivial = to_numpy(graph.trivial)
    np.testing.assert_allclose(to_numpy(graph.apply_normalised(graph.trivial)), trivial, atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(trivial), 1.0)
