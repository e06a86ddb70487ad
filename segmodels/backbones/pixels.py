"""Images to network input: Lanczos resizing and ImageNet normalisation (as MaskCut)."""

import numpy as np
from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image to a square with Lanczos; the aspect ratio is not kept, as in MaskCut.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: side of the square in pixels.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ValueError: the array is not an 8-bit RGB image, or the size is not positive.
    """
    _check_rgb(image)
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    if image.shape[:2] == (size, size):
        return image.copy()
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))


def normalised_pixels(image: np.ndarray) -> np.ndarray:
    """Scale 8-bit pixels to [0, 1] and normalise them with ImageNet's mean and deviation.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (3, H, W) float32, contiguous.

    Raises:
        ValueError: the array is not an 8-bit RGB image.
    """
    _check_rgb(image)
    mean = np.array(IMAGENET_MEAN, np.float32)
    std = np.array(IMAGENET_STD, np.float32)
    scaled = (image.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _check_rgb(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
