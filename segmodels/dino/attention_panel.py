"""Attention maps of a backbone's CLS token, head by head (DINO fig. 1)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from segmodels.backbones.backbone import Backbone
from segmodels.backbones.pixels import normalised_pixels, resize_square
from segmodels.pictures.sheets import Picture, contact_sheet

# Black, violet, orange, light yellow: lightness rises evenly, so the map also reads in grey.
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])


def attention_panel(backbone: Backbone, images: Sequence[Picture], tile: int = 160) -> Picture:
    """Draw one row an image: the image, then the attention of CLS in each head of the last block.

    Each map is scaled from 0 to its own 99th percentile.

    Args:
        backbone: its `image_size` is the side of the squares it sees.
        images: (H, W, 3) uint8 RGB each.
        tile: side of a picture in px.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    pictures, captions = [], []
    for image in images:
        square = resize_square(image, backbone.image_size)
        pixels = torch.from_numpy(normalised_pixels(square))[None]
        heads = backbone.cls_attention(pixels)[0].cpu().numpy()
        pictures += [square, *(heat(head, backbone.patch_size) for head in heads)]
        captions += ["photograph", *(f"head {number}" for number in range(1, len(heads) + 1))]
    return contact_sheet(pictures, captions, columns=len(pictures) // len(images), tile=tile)


def heat(values: NDArray[np.floating], side: int) -> Picture:
    """Colour a map of patches from dark (0) to light (its 99th percentile and above).

    Args:
        values: (gh, gw), at least 0.
        side: each patch becomes side x side pixels.

    Returns:
        (gh * side, gw * side, 3) uint8 RGB.
    """
    level = np.clip(values / max(float(np.quantile(values, 0.99)), 1e-12), 0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(level, steps, channel) for channel in _HEAT.T], axis=-1)
    return colours.round().astype(np.uint8).repeat(side, axis=0).repeat(side, axis=1)
