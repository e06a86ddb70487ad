"""From keys to masks at the image's size: geometry, discarded masks, and a real photograph."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kernels.crf import refine_masks
from kernels.morphology import fill_holes
from kernels.ncut import maskcut
from segmodels.cutler.maskcut import MaskCutSettings
from segmodels.cutler.maskcut import discover_masks as discover_in_all

SMALL = MaskCutSettings(image_size=48)


def discover_masks(image, keys, settings):
    return discover_in_all([image], keys[None], settings)[0].masks


def iou(a, b):
    return np.sum(a & b) / np.sum(a | b)


def box_image(height, width, rows, columns):
    """A red box on green, with the 6 x 6 keys that a perfect backbone would give."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 1] = 140
    box = np.zeros((height, width), bool)
    box[rows, columns] = True
    image[box] = (200, 30, 30)
    patches = np.asarray(
        Image.fromarray(box.astype(np.uint8) * 255).resize((6, 6), Image.Resampling.BOX)
    )
    return image, box, np.eye(2, dtype=np.float16)[(patches > 127).astype(int)]


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (120, 60, slice(20, 60), slice(20, 40)),  # portrait
        (60, 120, slice(20, 40), slice(20, 60)),  # landscape
        (48, 48, slice(8, 24), slice(16, 40)),
    ],
    ids=["portrait", "landscape", "square"],
)
@pytest.mark.parametrize("use_crf", [True, False])
def test_masks_lie_where_the_object_is_at_the_images_size(height, width, rows, columns, use_crf):
    image, box, keys = box_image(height, width, rows, columns)

    first = discover_masks(image, keys, replace(SMALL, use_crf=use_crf))[0]

    assert first.mask.dtype == bool
    assert first.mask.shape == (height, width)
    assert iou(first.mask, box) > 0.95
    assert first.repetition == 0
    assert 0.5 <= first.score <= 1.0


def test_the_score_is_the_overlap_with_the_refined_mask():
    # The box ends inside a patch, so the CRF moves the mask's edge.
    image, _, keys = box_image(48, 48, slice(8, 27), slice(16, 40))
    working = discover_masks(image, keys, SMALL)[0]
    coarse = maskcut(keys.reshape(36, 2), (6, 6)).masks[:1].repeat(8, axis=1).repeat(8, axis=2)

    refined = fill_holes(refine_masks(image, coarse))

    assert working.score == pytest.approx(iou(coarse[0], refined[0]))
    assert working.score < 1.0
    np.testing.assert_array_equal(working.mask, refined[0])


def test_a_mask_that_refinement_changes_too_much_is_discarded():
    image, _, keys = box_image(48, 48, slice(8, 27), slice(16, 40))

    found = discover_masks(image, keys, replace(SMALL, crf_min_iou=1.0))

    assert all(mask.score == 1.0 for mask in found)
    assert len(found) < len(discover_masks(image, keys, SMALL))


def test_holes_are_filled():
    regions = np.zeros((6, 6), int)
    regions[1:5, 1:5] = 1
    regions[2, 2] = 0
    image = np.full((48, 48, 3), 90, np.uint8)

    found = discover_masks(image, np.eye(2)[regions], replace(SMALL, use_crf=False, max_masks=1))

    assert found[0].mask.sum() == 32 * 32
    assert found[0].score == pytest.approx(15 / 16)


def test_rejected_cuts_leave_no_masks_and_keep_their_numbers():
    # One object: the later cuts find it again, or nothing.
    regions = np.zeros((12, 12), int)
    regions[2:6, 2:6] = 1
    image = np.full((96, 96, 3), 90, np.uint8)

    found = discover_masks(image, np.eye(2)[regions], MaskCutSettings(image_size=96, use_crf=False))

    assert [mask.repetition for mask in found] == [0]


def test_grids_need_not_divide_the_working_image():
    image, box, keys = box_image(50, 50, slice(8, 25), slice(17, 42))

    found = discover_masks(image, keys, MaskCutSettings(image_size=50, use_crf=False))

    assert iou(found[0].mask, box) > 0.9


def test_a_mask_that_vanishes_at_the_images_size_is_discarded():
    regions = np.zeros((24, 24), int)
    regions[1, 1] = 1
    keys, settings = np.eye(2)[regions], MaskCutSettings(image_size=24, use_crf=False, max_masks=1)

    assert len(discover_masks(np.zeros((24, 24, 3), np.uint8), keys, settings)) == 1
    # One pixel of 576, far from the middle, rounds to black.
    assert discover_masks(np.zeros((1, 1, 3), np.uint8), keys, settings) == []


def test_centred_keys_see_past_a_common_part():
    image, box, keys = box_image(48, 48, slice(8, 24), slice(16, 40))
    offset = keys.astype(np.float32) + 20.0

    centred = discover_masks(image, offset, replace(SMALL, center_keys=True))

    assert iou(centred[0].mask, box) > 0.95


def test_same_image_same_masks():
    image, _, keys = box_image(60, 120, slice(20, 40), slice(20, 60))

    first, second = (discover_masks(image, keys, SMALL) for _ in range(2))

    assert [mask.mask.tobytes() for mask in first] == [mask.mask.tobytes() for mask in second]


def test_results_do_not_depend_on_the_batch():
    boxes = [
        box_image(60, 120, slice(20, 40), slice(20, 60)),
        box_image(48, 48, slice(8, 24), slice(16, 40)),
    ]
    images, keys = [each[0] for each in boxes], np.stack([each[2] for each in boxes])

    together = discover_in_all(images, keys, SMALL)

    for image, image_keys, in_batch in zip(images, keys, together, strict=True):
        alone = discover_masks(image, image_keys, SMALL)
        assert [found.mask.tobytes() for found in in_batch.masks] == [
            found.mask.tobytes() for found in alone
        ]
        assert in_batch.dense_fallbacks == 0


def test_keys_without_a_grid_are_refused():
    with pytest.raises(ValueError, match=r"keys must be \(1, gh, gw, d\), got \(1, 36, 2\)"):
        discover_masks(np.zeros((48, 48, 3), np.uint8), np.ones((36, 2)), SMALL)


def test_masks_of_a_reference_image(test_data):
    reference = np.load(test_data / "reference" / "maskcut" / "0166.npz")
    post = np.unpackbits(reference["post"], axis=-1).astype(bool)
    keys = reference["features"].reshape(60, 60, 40)

    found = discover_masks(reference["image"], keys, MaskCutSettings())

    # The reference keeps only what its CRF changes by at most one half, as we do.
    coarse = reference["bip"].repeat(8, axis=1).repeat(8, axis=2)
    kept = [i for i in range(3) if post[i].any() and iou(coarse[i], post[i]) >= 0.5]
    assert [mask.repetition for mask in found] == kept
    for mask in found:
        assert iou(mask.mask, post[mask.repetition]) > 0.95
