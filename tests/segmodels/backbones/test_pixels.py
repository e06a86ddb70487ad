"""Resizing and normalisation of photographs."""

import numpy as np
import pytest
from PIL import Image

from segmodels.backbones.pixels import normalised_pixels, resize_square


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_resize_square_is_pillows_lanczos_without_aspect() -> None:
    image = noise(30, 50)
    expected = np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resize_square(image, 24), expected)


def test_resize_square_to_the_same_size_copies() -> None:
    image = noise(16, 16)
    same = resize_square(image, 16)
    np.testing.assert_array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_normalised_pixels_by_hand() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 255
    expected_black = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    expected_white = [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]
    pixels = normalised_pixels(image)
    assert pixels.dtype == np.float32
    assert pixels.shape == (3, 1, 2)
    np.testing.assert_allclose(pixels[:, 0, 0], expected_black, rtol=1e-6)
    np.testing.assert_allclose(pixels[:, 0, 1], expected_white, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_only_8_bit_rgb(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 RGB"):
        normalised_pixels(bad)
    with pytest.raises(ValueError, match="uint8 RGB"):
        resize_square(bad, 8)


def test_resize_square_refuses_an_empty_side() -> None:
    with pytest.raises(ValueError, match="size must be positive"):
        resize_square(noise(4, 4), 0)
