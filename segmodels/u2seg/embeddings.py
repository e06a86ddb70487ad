"""One vector an instance, which clusters of instances are found on (U2Seg, section 3.2).

U2Seg's code embeds one picture an instance by the CLS token of DINO. How that picture was cut is
not published: box or masked box, the fill and the margin are our choice here, and a setting.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from segmodels.backbones.pixels import IMAGENET_MEAN, normalised_pixels, resize_square

if TYPE_CHECKING:
    import torch

    from segmodels.backbones.backbone import Backbone


@dataclass(frozen=True)
class EmbeddingSettings:
    """How an instance becomes a vector.

    Attributes:
        feature: "cls": the CLS token of the instance's own crop, not normalised (U2Seg's code);
            "masked_keys": the mean of the whole image's keys inside the mask (much cheaper: one
            pass of the backbone an image, not one an instance).
        crop: "masked_box": pixels outside the mask are filled; "box": they stay. Only for "cls".
        margin: Border around the box, as a share of its longer side, at least 0. Only for "cls".
        fill: What the background is filled with. Only for "masked_box".
        crop_size: Side in pixels of the square that the backbone sees; 0 takes the backbone's
            own image size. U2Seg's code: 480.
        batch_size: Crops a pass of the backbone.
    """

    feature: Literal["cls", "masked_keys"] = "cls"
    crop: Literal["masked_box", "box"] = "masked_box"
    margin: float = 0.1
    fill: Literal["imagenet_mean", "black"] = "imagenet_mean"
    crop_size: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ValueError(f"margin must not be negative, got {self.margin}")
        if self.crop_size < 0:
            raise ValueError(f"crop_size must not be negative, got {self.crop_size}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def embed_instances(
    image: np.ndarray, masks: np.ndarray, backbone: "Backbone", settings: EmbeddingSettings
) -> np.ndarray:
    """Embed all instances of one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (m, H, W) bool, each with at least one pixel.
        backbone: As `segmodels.dino.load_backbone` gives it.
        settings: See EmbeddingSettings.

    Returns:
        (m, d) float32, d the backbone's width.

    Raises:
        ValueError: Masks do not fit the image, one is empty, or the crop size is no multiple of
            the patch size.
    """
    if masks.ndim != 3 or masks.shape[1:] != image.shape[:2] or masks.dtype != np.bool_:
        raise ValueError(
            f"masks must be (m, {image.shape[0]}, {image.shape[1]}) bool like the image, got "
            f"{masks.shape} {masks.dtype}"
        )
    empty = np.flatnonzero(~masks.any(axis=(1, 2)))
    if len(empty):
        raise ValueError(f"mask {empty[0]} is empty: an instance without pixels has no embedding")
    size = settings.crop_size or backbone.image_size
    if size % backbone.patch_size:
        raise ValueError(
            f"crop_size must be a multiple of the patch size {backbone.patch_size}, got {size}"
        )
    if len(masks) == 0:
        return np.zeros((0, backbone.dim), np.float32)
    if settings.feature == "masked_keys":
        return _mean_keys(image, masks, backbone, size)
    crops = (centre_crop(cut_instance(image, mask, settings), size) for mask in masks)
    vectors = [
        backbone.extract(_tensor(batch)).cls.cpu().numpy()
        for batch in _batches(crops, settings.batch_size)
    ]
    return np.concatenate(vectors).astype(np.float32, copy=False)


def cut_instance(image: np.ndarray, mask: np.ndarray, settings: EmbeddingSettings) -> np.ndarray:
    """Cut an instance out of its image.

    Returns:
        (h, w, 3) uint8: the mask's box with its margin, as far as the image reaches.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    border = round(settings.margin * longer)
    box = (
        slice(max(rows[0] - border, 0), rows[-1] + 1 + border),
        slice(max(columns[0] - border, 0), columns[-1] + 1 + border),
    )
    crop = image[box].copy()
    if settings.crop == "masked_box":
        crop[~mask[box]] = _fill_colour(settings.fill)
    return crop


def centre_crop(crop: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side to `size` (bilinear) and keep the square in the middle.

    An instance much longer than wide loses its ends, as in U2Seg's code.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = crop.shape[:2]
    shorter = min(height, width)
    # The square in the middle, in pixels of the crop: resizing only it saves the rest.
    left, top = (width - shorter) / 2, (height - shorter) / 2
    middle = (left, top, left + shorter, top + shorter)
    resized = Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR, box=middle)
    return np.asarray(resized)


def pool_mask(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the share (gh, gw) float32 of each patch that the mask covers.

    Exact also where the grid does not divide the image: pixels on an edge count in part.
    """
    rows, columns = (_overlaps(*sides) for sides in zip(grid, mask.shape, strict=True))
    pooled: np.ndarray = rows @ mask.astype(np.float32) @ columns.T
    return pooled


def _overlaps(cells: int, pixels: int) -> np.ndarray:
    """Return (cells, pixels) float32: the share of each cell that lies in each pixel."""
    edges = np.linspace(0, pixels, cells + 1)[:, None]
    starts = np.arange(pixels)
    inside = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return np.asarray(np.maximum(inside, 0) * cells / pixels, np.float32)


def _mean_keys(image: np.ndarray, masks: np.ndarray, backbone: "Backbone", size: int) -> np.ndarray:
    """Mean of the keys of the image (resized to a square, as for MaskCut) inside each mask."""
    batch = normalised_pixels(resize_square(image, size))[None]
    keys = backbone.extract(_tensor(batch)).keys[0].cpu().numpy().astype(np.float64)
    weights = np.stack([pool_mask(mask, keys.shape[:2]) for mask in masks]).astype(np.float64)
    total = np.einsum("mij,ijd->md", weights, keys)
    return np.asarray(total / weights.sum(axis=(1, 2))[:, None], np.float32)


def _batches(crops: Iterator[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """Yield (n, 3, size, size) float32 normalised pixels, n at most `batch_size`."""
    held: list[np.ndarray] = []
    for crop in crops:
        held.append(normalised_pixels(crop))
        if len(held) == batch_size:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


def _fill_colour(fill: Literal["imagenet_mean", "black"]) -> np.ndarray:
    if fill == "black":
        return np.zeros(3, np.uint8)
    return np.round(np.array(IMAGENET_MEAN) * 255).astype(np.uint8)


def _tensor(batch: np.ndarray) -> "torch.Tensor":
    # Here, not above: the settings of this module are read where torch is not loaded.
    import torch

    return torch.from_numpy(batch)
