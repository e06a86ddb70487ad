"""The lattice in array operations against the one in compiled loops."""

import numpy as np
import pytest
from array_modules import CUPY, module_named

from kernels.backend import to_numpy
from kernels.permutohedral.lattice_cpu import build_lattice, normalise_symmetrically
from kernels.permutohedral.lattice_gpu import build_normalised_lattice


@pytest.fixture(scope="module", params=["numpy", CUPY])
def xp(request):
    return module_named(request.param)


@pytest.mark.parametrize(
    ("dimensions", "points", "spread"), [(2, 900, 30), (3, 500, 4), (5, 700, 8)]
)
def test_both_lattices_are_the_same(xp, dimensions, points, spread):
    rng = np.random.default_rng(dimensions)
    features = (rng.normal(size=(dimensions, points)) * spread).astype(np.float32)

    host = normalise_symmetrically(build_lattice(features.T))
    arrays = build_normalised_lattice(features, 1, xp)

    np.testing.assert_array_equal(to_numpy(arrays.corners), host.corners)
    np.testing.assert_array_equal(to_numpy(arrays.neighbours), host.neighbours)
    np.testing.assert_allclose(to_numpy(arrays.weights), host.weights, rtol=1e-5)


def test_a_vertex_sums_any_number_of_points(xp):
    # 5000 points in one cell: sums of sums of sums.
    features = np.random.default_rng(3).random((2, 5000)).astype(np.float32) * 0.01
    values = np.random.default_rng(4).random((5000, 1)).astype(np.float32)
    sums = xp.zeros((5000, 1), np.float32)

    build_normalised_lattice(features, 1, xp).add_filtered(sums, 1, xp.asarray(values))

    np.testing.assert_allclose(to_numpy(sums), values.mean(), rtol=5e-3)


def test_features_too_far_apart_are_refused(xp):
    with pytest.raises(ValueError, match="larger standard deviations"):
        build_normalised_lattice(np.array([[0, 1e9]], np.float32), 1, xp)
