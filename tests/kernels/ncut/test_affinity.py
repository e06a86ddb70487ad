"""The patch graph: joins by cosine, and products that never write the affinity out."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_graphs import STORAGES, graph_of

from kernels.backend import array_module, resolve_backend, to_numpy
from kernels.errors import BackendUnavailableError
from kernels.ncut.adjacency import BitAdjacency, DenseAdjacency, join_by_cosine
from kernels.ncut.affinity import PatchGraphs, center_keys

KEYS = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 12), st.integers(1, 5)), elements=st.integers(-3, 3)
)


def joined(keys, tau):
    """What both storages say of one image; they must agree."""
    bits = BitAdjacency.of_keys(keys[None], tau).dense(0)
    np.testing.assert_array_equal(DenseAdjacency.of_keys(keys[None], tau, np).dense(0), bits)
    return bits


def symmetric(size, density, seed=0):
    upper = np.triu(np.random.default_rng(seed).random((size, size)) < density)
    return upper | upper.T


def test_patches_are_joined_by_the_angle_between_their_keys():
    keys = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 5.0], [-1.0, 0.0]])

    adjacency = joined(keys, 0.5)

    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(adjacency, np.array(expected, bool))


def test_the_threshold_is_strict():
    keys = np.array([[1.0, 0.0], [0.0, 1.0]])

    assert not joined(keys, 0.0)[0, 1]
    assert joined(keys, -1e-6)[0, 1]


@given(KEYS, st.sampled_from([-0.55, -0.1, 0.0, 0.15, 0.77]))
@settings(max_examples=30, deadline=None)
def test_adjacency_is_symmetric_and_blind_to_length(keys, tau):
    adjacency = joined(keys, tau)
    lengths = 2.0 ** np.arange(len(keys))[:, None]

    np.testing.assert_array_equal(adjacency, adjacency.T)
    np.testing.assert_array_equal(adjacency, joined(keys * lengths, tau))


@given(KEYS, st.sampled_from([-0.4, 0.0, 0.15]), st.integers(0, 2**12 - 1))
@settings(max_examples=30, deadline=None)
def test_painting_is_setting_keys_to_zero(keys, tau, bits):
    painted = np.array([bits >> patch & 1 for patch in range(len(keys))], bool)
    zeroed = np.where(painted[:, None], np.float32(0), keys)

    graph = graph_of(joined(keys, tau), eps=0.5, painted=painted[None], painted_joined=tau < 0.0)

    expected = np.where(joined(zeroed, tau), 1.0, 0.5)
    np.testing.assert_array_equal(graph.dense_affinity(0), expected)
    columns = [graph.apply(unit[None])[0] for unit in np.eye(len(keys))]
    np.testing.assert_allclose(np.stack(columns), expected, atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_keys_must_be_finite(bad):
    keys = np.ones((4, 3))
    keys[2, 1] = bad

    with pytest.raises(ValueError, match="keys must be finite"):
        joined(keys, 0.15)


def test_keys_too_long_for_float32_are_refused_not_ignored():
    with pytest.raises(ValueError, match="keys must be finite"):
        joined(np.full((2, 2), 1e30), 0.15)


def test_half_precision_keys_do_not_overflow():
    assert joined(np.full((2, 64), 6e4, np.float16), 0.9).all()


@pytest.mark.parametrize("patches", [1, 7, 255, 256, 257, 300, 600])
def test_cosines_computed_in_parts_join_like_the_whole(patches):
    # Whole numbers: every cosine is rounded alike, however the product is cut.
    keys = np.random.default_rng(patches).integers(-3, 4, (patches, 9)).astype(np.float32)
    unit = keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-12)
    cosines = unit.astype(np.float64) @ unit.T.astype(np.float64)
    clear = np.abs(cosines - 0.15) > 1e-6

    np.testing.assert_array_equal(joined(keys, 0.15)[clear], (cosines > 0.15)[clear])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("size", [1, 2, 7, 64, 131])
def test_products_agree_with_the_written_affinity(size, storage):
    eps = 1e-3
    adjacency = symmetric(size, 0.3)
    affinity = np.where(adjacency, 1.0, eps)
    degrees = affinity.sum(axis=1)
    vector = np.random.default_rng(1).standard_normal((1, size))

    graph = graph_of(adjacency, eps, storage)

    np.testing.assert_allclose(graph.degrees[0], degrees, rtol=1e-13)
    np.testing.assert_allclose(graph.apply(vector), vector @ affinity, atol=1e-12)
    normalised = affinity / np.sqrt(np.outer(degrees, degrees))
    np.testing.assert_allclose(graph.apply_normalised(vector), vector @ normalised, atol=1e-12)
    np.testing.assert_allclose(graph.dense_normalised(0), normalised, atol=1e-15)


@pytest.mark.parametrize("storage", STORAGES)
def test_images_keep_their_own_graphs(storage):
    adjacencies = [symmetric(20, density, seed) for seed, density in enumerate((0.1, 0.5, 0.9))]
    vectors = np.random.default_rng(0).standard_normal((3, 20))

    adjacency = storage(*adjacencies)
    joined_sums = adjacency.sum_joined(vectors)
    some = adjacency.take(np.array([2, 0]))

    for image, alone in enumerate(adjacencies):
        np.testing.assert_allclose(joined_sums[image], alone @ vectors[image], atol=1e-12)
    assert some.shape == (2, 20)
    np.testing.assert_array_equal(some.dense(0), adjacencies[2])
    np.testing.assert_array_equal(some.dense(1), adjacencies[0])


def test_the_trivial_vector_is_an_eigenvector_of_value_one():
    graph = graph_of(symmetric(50, 0.1))

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
    keys = np.random.default_rng(3).integers(-4, 5, (1, 300, 16)).astype(np.float32)

    on_device, on_host = (
        join_by_cosine(keys, 0.15, array_module(name)) for name in (backend, "cpu")
    )

    np.testing.assert_array_equal(on_device.dense(0), on_host.dense(0))
    np.testing.assert_allclose(
        to_numpy(PatchGraphs(on_device, 1e-5).degrees), PatchGraphs(on_host, 1e-5).degrees
    )
