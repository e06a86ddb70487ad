from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numba
import numpy as np
import pytest
from array_modules import require_gpu
from scipy.ndimage import binary_fill_holes

from kernels.crf import (
    MASKCUT_CRF,
    STEGO_CRF,
    CrfSettings,
    mean_field,
    refine_batch,
    refine_masks,
)


def exact_mean_field(image, unary, settings):
    """Mean field with dense kernel matrices: the definition, without any lattice."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width].reshape(2, -1).astype(float)
    positions = np.stack([columns, rows], axis=1)
    colours = image.reshape(-1, 3).astype(float)
    bilateral = np.hstack([positions / settings.bilateral_std, colours / settings.colour_std])
    kernels = []
    for features, compat in [
        (positions / settings.smooth_std, settings.smooth_compat),
        (bilateral, settings.bilateral_compat),
    ]:
        kernel = np.exp(-((features[:, None] - features[None]) ** 2).sum(axis=2) / 2)
        scale = 1 / np.sqrt(kernel.sum(axis=1))
        kernels.append(compat * scale[:, None] * kernel * scale[None])
    evidence = -unary.reshape(len(unary), -1).T.astype(float)
    scores = evidence
    for _ in range(settings.steps):
        marginals = np.exp(scores - scores.max(axis=1, keepdims=True))
        marginals /= marginals.sum(axis=1, keepdims=True)
        scores = evidence + sum(kernel @ marginals for kernel in kernels)
    marginals = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (marginals / marginals.sum(axis=1, keepdims=True)).T.reshape(unary.shape)


def disc_on_ground(size=40, radius=12):
    """A noisy red disc on a noisy green ground, and the disc's mask."""
    rows, columns = np.mgrid[:size, :size]
    disc = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < radius**2
    image = np.where(disc[..., None], [200, 40, 40], [40, 160, 60])
    noise = np.random.default_rng(0).integers(-4, 5, image.shape)
    return (image + noise).astype(np.uint8), disc


def two_class_unary(mask):
    scores = np.stack([1.0 - mask, 1.0 * mask])
    return -(scores - np.log(np.exp(scores).sum(axis=0)))


def test_a_blocky_mask_snaps_to_the_colour_edge():
    image, disc = disc_on_ground()
    blocky = disc.reshape(5, 8, 5, 8).mean(axis=(1, 3)) > 0.5
    coarse = blocky.repeat(8, axis=0).repeat(8, axis=1)
    refined = refine_masks(image, coarse[None])[0]
    assert (coarse ^ disc).sum() > 50
    assert (refined ^ disc).sum() < 5


def test_refinement_agrees_with_the_dense_definition():
    image, disc = disc_on_ground(32, 9)
    mask = np.roll(disc, 3, axis=1)
    exact = exact_mean_field(image, two_class_unary(mask), MASKCUT_CRF)
    refined = refine_masks(image, mask[None])[0]
    assert (refined != (exact[1] > exact[0])).mean() < 0.01


def test_general_and_two_class_forms_agree():
    image, disc = disc_on_ground()
    mask = np.roll(disc, 4, axis=0)
    marginals = mean_field(image, two_class_unary(mask), MASKCUT_CRF)
    np.testing.assert_array_equal(
        refine_masks(image, mask[None])[0], marginals.argmax(axis=0).astype(bool)
    )


def test_many_classes_agree_with_the_dense_definition():
    image, _ = disc_on_ground(28, 8)
    unary = np.random.default_rng(1).random((6, 28, 28)) * 3
    crf = CrfSettings(2, 1, 10, 20, 2, steps=5)
    exact = exact_mean_field(image, unary, crf)
    ours = mean_field(image, unary, crf)
    assert ours.shape == (6, 28, 28)
    assert ours.dtype == np.float32
    assert (ours.argmax(axis=0) == exact.argmax(axis=0)).mean() > 0.97
    assert np.abs(ours - exact).mean() < 0.02


def test_marginals_sum_to_one_with_stegos_classes():
    image, _ = disc_on_ground()
    unary = np.random.default_rng(2).random((27, 40, 40))
    marginals = mean_field(image, unary, STEGO_CRF)
    np.testing.assert_allclose(marginals.sum(axis=0), 1, atol=1e-5)
    assert marginals.min() >= 0


def test_a_mask_is_refined_independently_of_the_others():
    image, disc = disc_on_ground()
    masks = np.stack([np.roll(disc, shift, axis=1) for shift in range(-3, 4)])
    together = refine_masks(image, masks)
    for mask, refined in zip(masks, together, strict=True):
        np.testing.assert_array_equal(refine_masks(image, mask[None])[0], refined)


def test_two_python_threads_at_once_change_no_byte():
    image, disc = disc_on_ground(120, 30)
    masks = np.stack([np.roll(disc, shift, axis=1) for shift in range(3)])
    unary = np.random.default_rng(4).random((6, 120, 120))
    expected = refine_masks(image, masks), mean_field(image, unary, STEGO_CRF)

    def work(_):
        return refine_masks(image, masks), mean_field(image, unary, STEGO_CRF)

    def work_alone(_):
        numba.set_num_threads(1)  # holds for this Python thread
        return work(None)

    for task in (work, work_alone):
        with ThreadPoolExecutor(2) as pool:
            for results in pool.map(task, range(6)):
                for result, truth in zip(results, expected, strict=True):
                    assert result.tobytes() == truth.tobytes()


def test_a_mask_and_its_complement_are_treated_alike():
    image, disc = disc_on_ground()
    first, second = refine_masks(image, np.stack([disc, ~disc]))
    np.testing.assert_array_equal(first, ~second)


def test_exchanged_axes_give_exchanged_masks():
    image, disc = disc_on_ground()
    mask = np.roll(disc, 3, axis=0)
    plain = refine_masks(image, mask[None])[0]
    exchanged = refine_masks(image.swapaxes(0, 1).copy(), mask.T[None].copy())[0]
    # The lattice itself is not symmetric in x and y, so a few border pixels may differ.
    assert (plain != exchanged.T).mean() < 0.01


@pytest.mark.parametrize("full", [True, False])
def test_uniform_masks_stay_uniform(full):
    image, _ = disc_on_ground()
    masks = np.full((2, 40, 40), full)
    np.testing.assert_array_equal(refine_masks(image, masks), masks)


def test_a_constant_image_keeps_a_large_compact_mask():
    image = np.full((60, 60, 3), 90, np.uint8)
    mask = np.zeros((1, 60, 60), bool)
    mask[0, :, :30] = True
    refined = refine_masks(image, mask)
    assert (refined != mask).mean() < 0.05


def test_one_pixel():
    image = np.zeros((1, 1, 3), np.uint8)
    for value in (True, False):
        mask = np.full((1, 1, 1), value)
        np.testing.assert_array_equal(refine_masks(image, mask), mask)


def test_no_masks():
    image = np.zeros((4, 5, 3), np.uint8)
    assert refine_masks(image, np.zeros((0, 4, 5), bool)).shape == (0, 4, 5)


def test_inputs_stay_untouched():
    image, disc = disc_on_ground()
    unary = np.random.default_rng(3).random((3, 40, 40)).astype(np.float32)
    before = image.copy(), disc.copy(), unary.copy()
    refine_masks(image, disc[None])
    mean_field(image, unary, STEGO_CRF)
    for array, copy in zip((image, disc, unary), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("image", "masks", "message"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4), bool), "image must be .H, W, 3. uint8"),
        (np.zeros((4, 4, 3)), np.zeros((1, 4, 4), bool), "image must be .H, W, 3. uint8"),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((1, 0, 4), bool), "image must be"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 5, 4), bool), r"masks must be .m, 4, 5."),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), bool), r"masks must be .m, 4, 5."),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 4, 5), np.uint8), "masks must be bool"),
    ],
)
def test_wrong_shapes_are_refused(image, masks, message):
    with pytest.raises(ValueError, match=message):
        refine_masks(image, masks)


@pytest.mark.parametrize(
    ("unary", "message"),
    [
        (np.zeros((2, 5, 4)), "unary must be"),
        (np.zeros((1, 4, 5)), "classes >= 2"),
        (np.full((2, 4, 5), np.nan), "unary must be finite"),
    ],
)
def test_wrong_unaries_are_refused(unary, message):
    with pytest.raises(ValueError, match=message):
        mean_field(np.zeros((4, 5, 3), np.uint8), unary, STEGO_CRF)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="colour_std must be above 0"):
        replace(MASKCUT_CRF, colour_std=0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        replace(MASKCUT_CRF, steps=0)


def test_a_batch_is_its_images():
    image, disc = disc_on_ground()
    images = np.stack([image, image[::-1], image[:, ::-1]])
    masks = np.stack([np.stack([np.roll(disc, shift, axis=0), ~disc]) for shift in (1, 2, 3)])
    batch = refine_batch(images, masks, backend="cpu")
    for image, own, refined in zip(images, masks, batch, strict=True):
        np.testing.assert_array_equal(refine_masks(image, own, backend="cpu"), refined)
    with pytest.raises(ValueError, match=r"masks must be .m, 40, 40."):
        refine_batch(images, masks[:2])


def test_a_backend_is_auto_cpu_or_gpu():
    image, disc = disc_on_ground()
    with pytest.raises(ValueError, match="backend must be"):
        refine_masks(image, disc[None], backend="tpu")
    with pytest.raises(ValueError, match="backend must be"):
        mean_field(image, np.zeros((2, 40, 40)), STEGO_CRF, backend="tpu")


@pytest.mark.gpu
def test_both_backends_find_the_same_masks():
    require_gpu()
    image, disc = disc_on_ground(120, 30)
    images = np.stack([image, image[::-1]])
    masks = np.stack([np.stack([np.roll(disc, shift, axis=0), ~disc]) for shift in (3, 5)])
    unary = np.random.default_rng(6).random((6, 120, 120))

    on_device, on_host = (refine_batch(images, masks, backend=name) for name in ("gpu", "cpu"))
    again = refine_batch(images, masks, backend="gpu")
    device_field, host_field = (
        mean_field(image, unary, STEGO_CRF, backend=name) for name in ("gpu", "cpu")
    )

    np.testing.assert_array_equal(on_device, again)
    assert np.mean(on_device == on_host) > 0.999
    np.testing.assert_allclose(device_field, host_field, atol=1e-3)


def test_parity_with_the_public_maskcut(test_data):
    """Same masks before the CRF, then our CRF and hole filling, against the reference's output."""
    overlaps = []
    for path in sorted((test_data / "reference" / "maskcut").glob("*.npz")):
        with np.load(path) as reference:
            image, coarse = reference["image"], reference["bip"]
            expected = np.unpackbits(reference["post"]).reshape(-1, 480, 480).astype(bool)
        masks = coarse.repeat(8, axis=1).repeat(8, axis=2)
        masks[1:] &= ~np.logical_or.accumulate(masks, axis=0)[:-1]
        for refined, truth in zip(refine_masks(image, masks), expected, strict=True):
            filled = binary_fill_holes(refined)
            if truth.any():
                overlaps.append((filled & truth).sum() / (filled | truth).sum())
    assert len(overlaps) == 12
    assert np.mean(overlaps) >= 0.999
