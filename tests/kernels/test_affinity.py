"""The patch graph: joins by cosine, and products that never write the affinity out."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.affinity import PatchGraph, binary_adjacency, center_keys, paint
from kernels.backend import resolve_backend, to_numpy
from kernels.errors import BackendUnavailableError

KEYS = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 12), st.integers(1, 5)), elements=st.integers(-3, 3)
)


def symmetric(size, density, seed=0):
    upper = np.triu(np.random.default_rng(seed).random((size, size)) < density)
    return upper | upper.T


def test_patches_are_joined_by_the_angle_between_their_keys():
    keys = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 5.0], [-1.0, 0.0]])

    adjacency = binary_adjacency(keys, 0.5)

    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(adjacency, np.array(expected, bool))


def test_the_threshold_is_strict():
    keys = np.array([[1.0, 0.0], [0.0, 1.0]])

    assert not binary_adjacency(keys, 0.0)[0, 1]
    assert binary_adjacency(keys, -1e-6)[0, 1]


@given(KEYS, st.sampled_from([-0.55, -0.1, 0.0, 0.15, 0.77]))
@settings(max_examples=30, deadline=None)
def test_adjacency_is_symmetric_and_blind_to_length(keys, tau):
    adjacency = binary_adjacency(keys, tau)
    lengths = 2.0 ** np.arange(len(keys))[:, None]

    np.testing.assert_array_equal(adjacency, adjacency.T)
    np.testing.assert_array_equal(adjacency, binary_adjacency(keys * lengths, tau))


@given(KEYS, st.sampled_from([-0.4, 0.0, 0.15]), st.integers(0, 2**12 - 1))
@settings(max_examples=30, deadline=None)
def test_painting_is_setting_keys_to_zero(keys, tau, bits):
    painted = np.array([bits >> patch & 1 for patch in range(len(keys))], bool)
    zeroed = np.where(painted[:, None], np.float32(0), keys)

    by_rows = paint(binary_adjacency(keys, tau), painted, tau)

    np.testing.assert_array_equal(by_rows, binary_adjacency(zeroed, tau))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_keys_must_be_finite(bad):
    keys = np.ones((4, 3))
    keys[2, 1] = bad

    with pytest.raises(ValueError, match="keys must be finite"):
        binary_adjacency(keys, 0.15)


def test_keys_too_long_for_float32_are_refused_not_ignored():
    with pytest.raises(ValueError, match="keys must be finite"):
        binary_adjacency(np.full((2, 2), 1e30), 0.15)


def test_half_precision_keys_do_not_overflow():
    assert binary_adjacency(np.full((2, 64), 6e4, np.float16), 0.9).all()


@pytest.mark.parametrize("size", [1, 2, 7, 64, 131])
def test_products_agree_with_the_written_affinity(size):
    eps = 1e-3
    adjacency = symmetric(size, 0.3)
    affinity = np.where(adjacency, 1.0, eps)
    degrees = affinity.sum(axis=1)
    vector = np.random.default_rng(1).standard_normal(size)

    graph = PatchGraph(adjacency, eps)

    np.testing.assert_allclose(graph.degrees, degrees, rtol=1e-13)
    np.testing.assert_allclose(graph.apply(vector), affinity @ vector, atol=1e-12)
    normalised = affinity / np.sqrt(np.outer(degrees, degrees))
    np.testing.assert_allclose(graph.apply_normalised(vector), normalised @ vector, atol=1e-12)
    np.testing.assert_allclose(graph.dense_normalised(), normalised, atol=1e-15)


def test_the_trivial_vector_is_an_eigenvector_of_value_one():
    graph = PatchGraph(symmetric(50, 0.1), 1e-5)

    np.testing.assert_allclose(graph.apply_normalised(graph.trivial), graph.trivial, atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(graph.trivial), 1.0)


def test_center_keys_removes_the_common_part():
    keys = np.random.default_rng(2).standard_normal((3, 4, 5)).astype(np.float16)

    centred = center_keys(keys + np.float16(3))

    assert centred.dtype == np.float32
    np.testing.assert_allclose(centred.reshape(-1, 5).mean(axis=0), 0, atol=1e-6)
    np.testing.assert_array_equal(
        center_keys(keys).reshape(12, 5), center_keys(keys.reshape(12, 5))
    )


@pytest.mark.gpu
def test_both_backends_build_the_same_graph():
    try:
        backend = resolve_backend("gpu")
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    # Small whole numbers: cosines equal to tau up to rounding do not occur at 0.15.
    keys = np.random.default_rng(3).integers(-4, 5, (300, 16)).astype(np.float32)

    adjacency = binary_adjacency(keys, 0.15, backend=backend)

    expected = binary_adjacency(keys, 0.15)
    np.testing.assert_array_equal(to_numpy(adjacency), expected)
    np.testing.assert_allclose(
        to_numpy(PatchGraph(adjacency, 1e-5, backend).degrees), PatchGraph(expected, 1e-5).degrees
    )
