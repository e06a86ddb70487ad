"""Instance embeddings, on which instances are clustered (U2Seg sec. 3.2).

U2Seg's code embeds a crop of each instance by the CLS token of DINO. How it crops is not published;
box or masked box, fill and margin are settings of ours.
"""

from collections.abc import Iterable, Iterator
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
    """How instances are embedded.

    Attributes:
        feature: "cls": CLS token of the instance's crop, not normalised (U2Seg's code);
            "masked_keys": mean of the image's keys inside the mask (cheaper: one forward pass per
            image, not per instance).
        crop: "masked_box" fills the pixels outside the mask, "box" keeps them. Only for "cls".
        margin: around the box, as a share of its longer side, at least 0. Only for "cls".
        fill: colour outside the mask. Only for "masked_box".
        crop_size: side of the backbone's square input, px; 0 takes the backbone's `image_size`.
            U2Seg's code: 480.
        batch_size: crops per forward pass, of one or several images.
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
        masks: (m, H, W) bool, none empty.
        backbone: as from `load_backbone`.
        settings: how to embed.

    Returns:
        (m, d) float32; d is the backbone's dimension.

    Raises:
        ValueError: masks and image differ in size, a mask is empty, or `crop_size` is no multiple
            of the patch size.
    """
    if settings.feature == "masked_keys":
        _check_masks(image, masks)
        return _mean_keys(image, masks, backbone, input_size(backbone, settings))
    crops = instance_crops(image, masks, input_size(backbone, settings), settings)
    return embed_crops(crops, backbone, settings.batch_size)


def input_size(backbone: "Backbone", settings: EmbeddingSettings) -> int:
    """Side of the backbone's square input, px.

    Raises:
        ValueError: `crop_size` is no multiple of the patch size.
    """
    size = settings.crop_size or backbone.image_size
    if size % backbone.patch_size:
        raise ValueError(
            f"crop_size must be a multiple of the patch size {backbone.patch_size}, got {size}"
        )
    return size


def instance_crops(
    image: np.ndarray, masks: np.ndarray, size: int, settings: EmbeddingSettings
) -> list[np.ndarray]:
    """Crops of the instances of one image, (size, size, 3) uint8 RGB each.

    Raises:
        ValueError: masks and image differ in size, or a mask is empty.
    """
    _check_masks(image, masks)
    return [center_crop(crop_instance(image, mask, settings), size) for mask in masks]


def embed_crops(crops: Iterable[np.ndarray], backbone: "Backbone", batch_size: int) -> np.ndarray:
    """CLS tokens of crops of any number of images, (m, d) float32."""
    vectors = [
        backbone.extract(_tensor(batch)).cls.cpu().numpy() for batch in _batches(crops, batch_size)
    ]
    if not vectors:
        return np.zeros((0, backbone.dim), np.float32)
    return np.concatenate(vectors).astype(np.float32, copy=False)


def _check_masks(image: np.ndarray, masks: np.ndarray) -> None:
    if masks.ndim != 3 or masks.shape[1:] != image.shape[:2] or masks.dtype != np.bool_:
        raise ValueError(
            f"masks must be (m, {image.shape[0]}, {image.shape[1]}) bool like the image, got "
            f"{masks.shape} {masks.dtype}"
        )
    empty = np.flatnonzero(~masks.any(axis=(1, 2)))
    if len(empty):
        raise ValueError(f"mask {empty[0]} is empty: an instance without pixels has no embedding")


def crop_instance(image: np.ndarray, mask: np.ndarray, settings: EmbeddingSettings) -> np.ndarray:
    """Crop an instance from its image, (H, W, 3) uint8 RGB.

    Returns:
        (h, w, 3) uint8: the mask's box and its margin, clipped to the image.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longer_side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    border = round(settings.margin * longer_side)
    box = (
        slice(max(rows[0] - border, 0), rows[-1] + 1 + border),
        slice(max(columns[0] - border, 0), columns[-1] + 1 + border),
    )
    crop = image[box].copy()
    if settings.crop == "masked_box":
        crop[~mask[box]] = _fill_colour(settings.fill)
    return crop


def center_crop(crop: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side to `size` (bilinear) and crop the centre square, as U2Seg's code does.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = crop.shape[:2]
    shorter = min(height, width)
    # Resizing only the centre square is the same and cheaper.
    left, top = (width - shorter) / 2, (height - shorter) / 2
    square = (left, top, left + shorter, top + shorter)
    resized = Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR, box=square)
    return np.asarray(resized)


def pool_mask(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the share of each patch that the mask covers, (gh, gw) float32.

    Exact also where the grid does not divide the image: pixels are split between patches.
    """
    rows, columns = (_overlaps(*sides) for sides in zip(grid, mask.shape, strict=True))
    pooled: np.ndarray = rows @ mask.astype(np.float32) @ columns.T
    return pooled


def _overlaps(cells: int, pixels: int) -> np.ndarray:
    """Return the share of each cell that lies in each pixel, (cells, pixels) float32."""
    edges = np.linspace(0, pixels, cells + 1)[:, None]
    starts = np.arange(pixels)
    inside = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return np.asarray(np.maximum(inside, 0) * cells / pixels, np.float32)


def _mean_keys(image: np.ndarray, masks: np.ndarray, backbone: "Backbone", size: int) -> np.ndarray:
    """Mean key of the image, resized to a square as for MaskCut, inside each mask."""
    if len(masks) == 0:
        return np.zeros((0, backbone.dim), np.float32)
    batch = normalised_pixels(resize_square(image, size))[None]
    keys = backbone.extract(_tensor(batch)).keys[0].cpu().numpy().astype(np.float64)
    weights = np.stack([pool_mask(mask, keys.shape[:2]) for mask in masks]).astype(np.float64)
    total = np.einsum("mij,ijd->md", weights, keys)
    return np.asarray(total / weights.sum(axis=(1, 2))[:, None], np.float32)


def _batches(crops: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
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
    # Imported here: the settings of this module are read where torch is not loaded.
    import torch

    return torch.from_numpy(batch)
