"""Overlays, sheets and encoders: sizes, stability and limits."""

import io

import numpy as np
import pytest
from PIL import Image

from segmodels.pictures.encode import data_uri, encode_jpeg
from segmodels.pictures.overlays import overlay_masks, overlay_panoptic
from segmodels.pictures.palette import stuff_colour, thing_colour
from segmodels.pictures.sheets import contact_sheet, crop, fit


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_overlay_tints_only_the_masks_and_their_outlines(image):
    masks = np.zeros((2, 60, 80), dtype=bool)
    masks[0, 10:30, 10:30] = True
    masks[1, 20:50, 40:70] = True
    shown = overlay_masks(image, masks)
    far = np.ones((60, 80), dtype=bool)
    far[8:53, 8:73] = False
    assert shown.shape == image.shape
    assert shown.dtype == np.uint8
    assert (shown[far] == image[far]).all()
    assert (shown[masks.any(axis=0)] != image[masks.any(axis=0)]).any(axis=-1).mean() > 0.9


def test_overlay_without_masks_is_the_image(image):
    assert (overlay_masks(image, np.zeros((0, 60, 80), dtype=bool)) == image).all()


def test_overlay_refuses_masks_of_another_size(image):
    with pytest.raises(ValueError, match="masks must be"):
        overlay_masks(image, np.zeros((1, 60, 81), dtype=bool))


def test_panoptic_overlay_leaves_void_and_unknown_segments(image):
    segments = np.zeros((60, 80), dtype=np.int32)
    segments[:, 40:] = 7
    segments[30:, 40:] = 9
    shown = overlay_panoptic(image, segments, {7: (3, True)})
    assert (shown[:, :39] == image[:, :39]).all()
    assert (shown[32:, 42:] == image[32:, 42:]).all()
    assert (shown[:29, 42:] != image[:29, 42:]).any()


def test_colours_are_stable_and_stuff_is_muted():
    assert (thing_colour(17) == thing_colour(17)).all()
    things = np.array([thing_colour(i) for i in range(1, 81)], dtype=int)
    stuff = np.array([stuff_colour(i) for i in range(1, 81)], dtype=int)
    assert len({tuple(colour) for colour in things.tolist()}) == 80
    assert np.ptp(things, axis=1).mean() > 2.5 * np.ptp(stuff, axis=1).mean()
    neighbours = np.abs(np.diff(things, axis=0)).sum(axis=1)
    assert neighbours.min() > 60


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (4, 2), (7, 3)])
def test_contact_sheet_has_the_promised_size(image, count, rows):
    plain = contact_sheet([image] * count, None, columns=3, tile=50)
    assert plain.shape == (rows * 56 + 6, 3 * 56 + 6, 3)
    captions = [f"a caption that is far too long for its tile {i}" for i in range(count)]
    labelled = contact_sheet([image] * count, captions, columns=3, tile=50)
    assert labelled.shape == (rows * 74 + 6, 3 * 56 + 6, 3)


def test_contact_sheet_wants_one_caption_an_image(image):
    with pytest.raises(ValueError, match="captions must be 2"):
        contact_sheet([image] * 2, ["one"])


def test_fit_keeps_proportions_and_never_vanishes():
    assert fit(np.zeros((10, 40, 3), np.uint8), 20, 20).shape == (5, 20, 3)
    assert fit(np.zeros((2, 900, 3), np.uint8), 90, 90).shape == (1, 90, 3)


@pytest.mark.parametrize(
    "box", [(0, 0, 80, 60), (79.5, 59.5, 0, 0), (-5, -5, 3, 3), (90, 90, 5, 5)]
)
def test_crop_is_never_empty(image, box):
    assert crop(image, box).size > 0


def test_jpegs_keep_to_the_limit():
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    content = encode_jpeg(noise, max_bytes=20_000)
    assert len(content) <= 20_000
    assert Image.open(io.BytesIO(content)).size[0] > 16
    small = encode_jpeg(noise[:8, :8], max_bytes=20_000)
    assert Image.open(io.BytesIO(small)).size == (8, 8)
    with pytest.raises(ValueError, match="max_bytes"):
        encode_jpeg(noise, max_bytes=10)


def test_data_uri_names_the_format(image):
    assert data_uri(encode_jpeg(image)).startswith("data:image/jpeg;base64,/9j/")
