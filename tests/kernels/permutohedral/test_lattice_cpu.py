import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.permutohedral.embedding import embed
from kernels.permutohedral.geometry import packing
from kernels.permutohedral.lattice_cpu import (
    build_lattice,
    from_lanes,
    in_lanes,
    normalise_symmetrically,
)
from kernels.permutohedral.vertices import find_neighbours, number_vertices


def gaussian_filter(lattice, values):
    """The lattice's filter of values (n, c)."""
    groups = in_lanes(values.T)
    sums = np.zeros_like(groups)
    lattice.add_filtered(sums, 1, groups)
    return from_lanes(sums, values.shape[1]).T


def gaussian_matrix(features):
    squared = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    return np.exp(-squared / 2)


@pytest.mark.parametrize(("dimensions", "spread"), [(1, 20.0), (2, 12.0), (3, 6.0), (5, 3.0)])
def test_filter_is_close_to_the_exact_gaussian(dimensions, spread):
    rng = np.random.default_rng(dimensions)
    features = rng.random((800, dimensions)) * spread
    values = rng.random((800, 3))
    exact = gaussian_matrix(features)
    lattice = build_lattice(features)

    filtered = gaussian_filter(lattice, values)
    assert np.corrcoef(filtered.ravel(), (exact @ values).ravel())[0, 1] > 0.99
    assert (filtered / (exact @ values)).mean() == pytest.approx(1, abs=0.12)

    average = filtered / gaussian_filter(lattice, np.ones((800, 1)))
    np.testing.assert_allclose(
        average, exact @ values / exact.sum(axis=1, keepdims=True), atol=0.03
    )


def test_symmetric_normalisation_is_close_to_the_exact_one():
    rng = np.random.default_rng(0)
    features = rng.random((600, 3)) * 5
    values = rng.random((600, 2))
    exact = gaussian_matrix(features)
    scale = 1 / np.sqrt(exact.sum(axis=1))
    expected = scale[:, None] * (exact @ (scale[:, None] * values))
    filtered = gaussian_filter(normalise_symmetrically(build_lattice(features)), values)
    assert np.abs(filtered - expected).mean() / expected.mean() < 0.02


def test_simplex_weights_are_shares():
    features = np.random.default_rng(1).normal(size=(500, 5)) * 3
    lattice = build_lattice(features)
    shares = lattice.weights / lattice.weights.sum(axis=1, keepdims=True)
    assert shares.min() >= -1e-5
    # The weights are shares times one constant, and the corners of a simplex are distinct.
    assert lattice.weights.sum(axis=1).std() < 1e-5
    assert all(len(set(row)) == 6 for row in lattice.corners.tolist())
    assert lattice.corners.max() == lattice.num_vertices


def test_neighbours_point_back_at_each_other():
    features = np.random.default_rng(2).normal(size=(300, 3)) * 2
    neighbours = build_lattice(features).neighbours
    for direction in neighbours:
        for vertex in range(1, len(direction)):
            behind, ahead = direction[vertex]
            assert ahead == 0 or direction[ahead, 0] == vertex
            assert behind == 0 or direction[behind, 1] == vertex


def test_a_far_away_point_receives_nothing():
    features = np.array([[0.0, 0.0], [100.0, 0.0], [0.1, 0.0]])
    filtered = gaussian_filter(build_lattice(features), np.array([[1.0], [0.0], [0.0]]))
    assert filtered[1, 0] == 0
    assert filtered[2, 0] > 0.5


def test_more_vertices_than_points():
    features = np.random.default_rng(3).random((30_000, 5)) * 200
    lattice = build_lattice(features)
    assert lattice.num_vertices > 100_000
    degree = gaussian_filter(lattice, np.ones((30_000, 1)))
    assert degree.min() > 0


@settings(max_examples=20, deadline=None)
@given(
    channels=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    factor=st.floats(-3, 3, allow_nan=False),
)
def test_the_filter_is_linear_in_each_channel_alone(channels, seed, factor):
    rng = np.random.default_rng(seed)
    lattice = build_lattice(rng.normal(size=(60, 2)))
    values = rng.normal(size=(60, channels))
    filtered = gaussian_filter(lattice, values)
    np.testing.assert_allclose(
        gaussian_filter(lattice, factor * values), factor * filtered, atol=1e-3
    )
    for channel in range(channels):
        alone = gaussian_filter(lattice, values[:, channel : channel + 1])
        np.testing.assert_array_equal(alone[:, 0], filtered[:, channel])


def test_equal_input_gives_equal_bytes():
    features = np.random.default_rng(4).normal(size=(2000, 5))
    values = np.random.default_rng(5).normal(size=(2000, 6))
    first = gaussian_filter(build_lattice(features), values)
    assert first.tobytes() == gaussian_filter(build_lattice(features), values).tobytes()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((0, 2)), "must be .points, dimensions."),
        (np.zeros(4), "must be .points, dimensions."),
        (np.array([[np.nan, 0.0]]), "must be finite"),
        (np.array([[0.0] * 5, [1e4] * 5]), "larger standard deviations"),
        (np.array([[0.0], [1e9]]), "larger standard deviations"),
    ],
)
def test_wrong_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        build_lattice(features)


def test_wrong_values_are_refused():
    lattice = build_lattice(np.eye(3))
    with pytest.raises(ValueError, match="groups and sums must be"):
        gaussian_filter(lattice, np.ones((2, 1)))
    with pytest.raises(ValueError, match="groups and sums must be"):
        lattice.add_filtered(np.zeros((1, 3, 4), np.float32), 1, np.zeros((1, 2, 4), np.float32))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="this machine has one thread")
def test_the_number_of_threads_changes_no_byte():
    threads = numba.config.NUMBA_NUM_THREADS
    features = np.random.default_rng(6).normal(size=(5000, 5)) * 3
    for channels in (3, 4 * threads + 1):  # fewer groups than threads, and more
        values = np.random.default_rng(7).normal(size=(5000, channels))

        alone, together = (run_with_threads(count, features, values) for count in (1, threads))

        for one, other in zip(alone, together, strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_the_number_of_parts_changes_no_byte(parts):
    features = np.random.default_rng(8).normal(size=(3, 4000)).astype(np.float32) * 4

    for one, other in zip(
        embed_in_parts(1, features), embed_in_parts(parts, features), strict=True
    ):
        assert one.tobytes() == other.tobytes()


def embed_in_parts(parts, features):
    strides, origins, bits = packing(features.min(axis=1), features.max(axis=1), 12)
    codes, weights = embed(features, strides, origins, parts)
    corners, firsts = number_vertices(codes, bits, parts)
    return corners, weights, firsts, find_neighbours(codes, firsts, strides, parts)


def run_with_threads(count, features, values):
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        lattice = normalise_symmetrically(build_lattice(features))
        return (
            lattice.corners,
            lattice.weights,
            lattice.neighbours,
            gaussian_filter(lattice, values),
        )
    finally:
        numba.set_num_threads(before)
