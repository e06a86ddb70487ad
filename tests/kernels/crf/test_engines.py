"""What every CRF engine must do: one table of hand-checked cases, one set of properties."""

import numpy as np
import pytest
from array_modules import CUPY, module_named
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.crf import STEGO_CRF, inference
from kernels.crf.engine_cpu import CpuEngine
from kernels.crf.engine_gpu import ArrayEngine

FEW = settings(max_examples=25, deadline=None)
LOG_3 = np.log(3)


@pytest.fixture(scope="module", params=["cpu", "numpy", CUPY])
def engine(request):
    """Compiled loops; arrays with NumPy in CuPy's place; arrays with CuPy."""
    return CpuEngine() if request.param == "cpu" else ArrayEngine(module_named(request.param))


def apply(engine, step, channels, padding=0.0):
    """Run an in-place step on (c, n) channels of the host."""
    channels = np.asarray(channels, np.float32)
    array = engine.from_channels(channels, padding)
    step(array)
    return engine.to_channels(array, len(channels))


def softmax(engine, scores):
    return apply(engine, engine.softmax, scores, padding=-1e30)


def filtered(engine, features, values):
    """K @ values for values (c, n), K normalised."""
    lattice = engine.build_lattice(np.asarray(features, np.float32), 1)
    arranged = engine.from_channels(np.asarray(values, np.float32), 0)
    sums = engine.from_channels(np.zeros_like(values, np.float32), 0)
    lattice.add_filtered(sums, 1.0, arranged)
    return engine.to_channels(sums, len(values))


def image_of(seed, size=72):
    """Smooth colours with edges and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image = np.zeros((size, size, 3))
    for _ in range(6):
        row, column, radius = rng.integers((0, 0, 5), (size, size, size // 2))
        image[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = rng.integers(0, 255, 3)
    return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


@given(st.integers(1, 9), st.integers(1, 40))
@FEW
def test_channels_come_back(engine, count, points):
    channels = np.random.default_rng(count).random((count, points)).astype(np.float32)

    back = engine.to_channels(engine.from_channels(channels, 7.0), count)

    assert back.dtype == np.float32
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, channels)


@pytest.mark.parametrize(
    ("odds", "expected"), [(0, 0), (LOG_3, 0.5), (-LOG_3, -0.5), (200, 1), (-200, -1)]
)
def test_tanh_half_by_hand(engine, odds, expected):
    np.testing.assert_allclose(apply(engine, engine.tanh_half, [[odds]]), [[expected]], atol=1e-6)


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20))
@FEW
def test_tanh_half_is_odd_and_bounded(engine, odds):
    found = apply(engine, engine.tanh_half, [odds])

    np.testing.assert_allclose(found, np.tanh(np.array([odds]) / 2), atol=1e-6)
    np.testing.assert_array_equal(apply(engine, engine.tanh_half, [np.negative(odds)]), -found)
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0, 0], [0.5, 0.5]),
        ([LOG_3, 0], [0.75, 0.25]),
        ([5, 5, 5, 5, 5], [0.2] * 5),
        ([1000, 0, -1000], [1, 0, 0]),
        ([-1e4, -1e4], [0.5, 0.5]),
    ],
    ids=["two", "log 3", "two lanes of groups", "far apart", "large"],
)
def test_softmax_by_hand(engine, scores, expected):
    found = softmax(engine, np.array(scores)[:, None])

    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


@given(st.integers(2, 30), st.integers(1, 300), st.integers(0, 2**16))
@FEW
def test_softmax_gives_probabilities_that_ignore_a_common_shift(engine, classes, pixels, seed):
    scores = np.random.default_rng(seed).normal(size=(classes, pixels)) * 5

    found = softmax(engine, scores)

    exact = np.exp(scores - scores.max(axis=0))
    np.testing.assert_allclose(found, exact / exact.sum(axis=0), atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(softmax(engine, scores + 8), found, atol=5e-6)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([[0.3], [0.7]], [[4.0]]),
        ([[0.0, 100.0], [0.0, 0.0]], [[4.0, 1.0]]),
        ([[0.5, 0.5], [0.2, 0.2]], [[2.5, 2.5]]),
    ],
    ids=["one point", "far apart", "equal points"],
)
def test_normalised_filter_by_hand(engine, features, expected):
    values = np.array([[4.0, 1.0]])[:, : len(expected[0])]

    np.testing.assert_allclose(filtered(engine, features, values), expected, rtol=1e-5)


@given(st.integers(1, 9), st.integers(0, 2**16))
@FEW
def test_the_filter_is_linear_in_each_channel(engine, channels, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(3, 60))
    values = rng.normal(size=(channels, 60))

    products = filtered(engine, features, values)

    np.testing.assert_allclose(filtered(engine, features, 3 * values), 3 * products, atol=1e-4)
    for channel in range(channels):
        alone = filtered(engine, features, values[channel : channel + 1])
        np.testing.assert_allclose(alone[0], products[channel], atol=1e-5)


def test_the_filter_adds_to_the_sums(engine):
    features = np.random.default_rng(1).normal(size=(5, 3000)).astype(np.float32)
    values = np.random.default_rng(2).normal(size=(7, 3000)).astype(np.float32)
    sums = engine.from_channels(np.ones_like(values), 0)

    lattice = engine.build_lattice(features, 1)
    lattice.add_filtered(sums, 2.0, engine.from_channels(values, 0))

    expected = 1 + 2 * filtered(CpuEngine(), features, values)
    np.testing.assert_allclose(engine.to_channels(sums, 7), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("full", [True, False])
def test_uniform_masks_stay_uniform(engine, full):
    masks = np.full((1, 2, 72, 72), full)

    np.testing.assert_array_equal(inference._refine(image_of(0)[None], masks, engine), masks)


def test_a_mask_and_its_complement_are_treated_alike(engine):
    mask = np.random.default_rng(5).random((9, 9)).repeat(8, axis=0).repeat(8, axis=1) > 0.5
    masks = np.stack([mask, ~mask])[None]

    refined = inference._refine(image_of(5)[None], masks, engine)[0]

    np.testing.assert_array_equal(refined[0], ~refined[1])


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_those_of_the_cpu(engine, seed):
    image = image_of(seed)[None]
    masks = np.random.default_rng(seed).random((1, 3, 9, 9)) > 0.5
    masks = masks.repeat(8, axis=2).repeat(8, axis=3)

    refined = inference._refine(image, masks, engine)

    assert (refined != inference._refine(image, masks, CpuEngine())).mean() < 1e-3


def test_images_of_a_batch_do_not_see_each_other(engine):
    images = np.stack([image_of(7), image_of(8)])
    masks = np.random.default_rng(9).random((2, 1, 72, 72)) > 0.4
    if isinstance(engine, CpuEngine):
        with pytest.raises(ValueError, match="one image at a time, got 2"):
            inference._refine(images, masks, engine)
        return

    together = inference._refine(images, masks, engine)

    for image, own, refined in zip(images, masks, together, strict=True):
        alone = inference._refine(image[None], own[None], engine)[0]
        np.testing.assert_array_equal(alone, refined)


def test_marginals_of_many_classes_are_those_of_the_cpu(engine):
    image = image_of(11)
    unary = np.random.default_rng(12).random((27, 72 * 72)) * 3

    fields = []
    for each in (engine, CpuEngine()):
        terms = inference._pairwise_terms(image[None], STEGO_CRF, each)
        scores = inference._iterate(each.from_channels(-unary, -1e30), terms, 5, each.softmax)
        each.softmax(scores)
        fields.append(each.to_channels(scores, 27))

    np.testing.assert_allclose(fields[0], fields[1], atol=2e-4)
