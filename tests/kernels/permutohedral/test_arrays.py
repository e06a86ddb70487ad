import numpy as np
import pytest

from kernels.crf import STEGO_CRF
from kernels.crf import inference as crf
from kernels.crf.engines import HOST, engine_of_arrays
from kernels.permutohedral.arrays import build_normalised_lattice
from kernels.permutohedral.lattice import build_lattice, normalise_symmetrically

ARRAYS = engine_of_arrays(np)


def photograph(seed, size=72):
    """Smooth colours with edges and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image = np.zeros((size, size, 3))
    for _ in range(6):
        row, column, radius = rng.integers((0, 0, 5), (size, size, size // 2))
        image[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = rng.integers(0, 255, 3)
    return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("dimensions", "points", "spread"), [(2, 900, 30), (3, 500, 4), (5, 700, 8)]
)
def test_both_lattices_are_the_same(dimensions, points, spread):
    rng = np.random.default_rng(dimensions)
    features = (rng.normal(size=(dimensions, points)) * spread).astype(np.float32)

    host = normalise_symmetrically(build_lattice(features.T))
    arrays = build_normalised_lattice(features, 1, np)

    np.testing.assert_array_equal(arrays.corners, host.corners)
    np.testing.assert_array_equal(arrays.neighbours, host.neighbours)
    np.testing.assert_allclose(arrays.weights, host.weights, rtol=1e-5)


def test_the_filter_gives_the_same_values():
    features = np.random.default_rng(1).normal(size=(5, 3000)).astype(np.float32)
    values = np.random.default_rng(2).normal(size=(3000, 7)).astype(np.float32)
    sums = np.ones_like(values)

    build_normalised_lattice(features, 1, np).add_filtered(sums, 2.0, values)

    expected = 1 + 2 * normalise_symmetrically(build_lattice(features.T)).filter(values)
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-5)


def test_a_vertex_sums_any_number_of_points():
    # 5000 points in one cell: sums of sums of sums.
    features = np.random.default_rng(3).random((2, 5000)).astype(np.float32) * 0.01
    values = np.random.default_rng(4).random((5000, 1)).astype(np.float32)
    sums = np.zeros_like(values)

    build_normalised_lattice(features, 1, np).add_filtered(sums, 1, values)

    np.testing.assert_allclose(sums, values.mean(), rtol=5e-3)


@pytest.mark.parametrize("seed", range(3))
def test_masks_and_marginals_are_the_same(seed):
    rng = np.random.default_rng(seed)
    images = np.stack([photograph(seed), photograph(seed + 100)])
    masks = rng.random((2, 3, 9, 9)).repeat(8, axis=2).repeat(8, axis=3) > 0.5

    refined = crf._refine(images, masks, ARRAYS)

    for image, own, mine in zip(images, masks, refined, strict=True):
        expected = crf._refine(image[None], own[None], HOST)[0]
        assert (mine != expected).mean() < 1e-3


def test_images_of_a_batch_do_not_see_each_other():
    images = np.stack([photograph(7), photograph(8)])
    masks = np.random.default_rng(9).random((2, 1, 72, 72)) > 0.4

    together = crf._refine(images, masks, ARRAYS)

    for image, own, refined in zip(images, masks, together, strict=True):
        np.testing.assert_array_equal(crf._refine(image[None], own[None], ARRAYS)[0], refined)


def test_marginals_of_many_classes_are_the_same():
    image = photograph(11)
    unary = np.random.default_rng(12).random((27, 72 * 72)) * 3

    fields = []
    for engine, padding in ((ARRAYS, 0), (HOST, -1e30)):
        terms = crf._pairwise_terms(image[None], STEGO_CRF, engine)
        scores = crf._iterate(engine.arrange(-unary, padding), terms, 5, engine.marginals)
        engine.marginals(scores)
        fields.append(engine.channels(scores, 27))

    np.testing.assert_allclose(fields[0], fields[1], atol=2e-4)


def test_features_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="larger standard deviations"):
        build_normalised_lattice(np.array([[0, 1e9]], np.float32), 1, np)
