"""Shape loss: predict the shape of an image's object from CLS.

`instance_embeddings` uses CLS of a masked box. In runs of an hour, neither DINO's loss nor a
contrast of objects (MaskContrast, Van Gansbeke et al. 2021) made CLS separate object classes better
than an untrained network does; the shape of an object says more about its class.
"""

import torch
from torch import Tensor
from torch.nn import functional

from segmodels.backbones.pixels import IMAGENET_MEAN
from segmodels.dino.multicrop import Views, views_at


def object_views(images: Tensor, maps: Tensor, size: int, generator: torch.Generator) -> Views:
    """Crop each image about its object's box, its background replaced by ImageNet's mean colour.

    Args:
        images: (b, 3, S, S) float32 in [0, 1].
        maps: (b, cells, cells) in [0, 1]; an image without an object is kept whole.
        size: side of the views, px.
        generator: source of every random draw.
    """
    maps = torch.where(maps.amax(dim=(1, 2), keepdim=True) > 0.5, maps, 1.0)
    opacity = functional.interpolate(maps[:, None], images.shape[-2:], mode="bilinear")
    opacity = (3 * opacity - 1).clamp(0, 1)
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    frames = _box_frames(maps > 0.5, generator)
    cut = torch.lerp(mean.expand_as(images), images, opacity)
    return views_at(cut, frames, size, generator)


def shape_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Binary cross entropy of the object's share of each cell of a view.

    Args:
        logits: (n, cells * cells), of the shape head on CLS.
        shares: (n, cells * cells) in [0, 1]; views without an object do not count.
    """
    counted = shares.sum(dim=1) > 0.5
    if not counted.any():
        return logits.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(logits[counted].float(), shares[counted])


def _box_frames(inside: Tensor, generator: torch.Generator) -> Tensor:
    """Frames (b, 4) about the boxes of masks (b, cells, cells), randomly shifted and scaled."""
    n, cells = inside.shape[:2]
    boxes = []
    for axis in (1, 2):
        line = inside.any(dim=axis).float()
        first, last = line.argmax(dim=1), cells - 1 - line.flip(1).argmax(dim=1)
        boxes.append(((first + last + 1) / cells - 1, (last + 1 - first) / cells))
    (x, half_width), (y, half_height) = boxes
    # In half of the draws the box becomes a square of its shorter side, like `center_crop`.
    shorter = torch.minimum(half_width, half_height)
    square = torch.rand(n, generator=generator) < 0.5
    half_width = torch.where(square, shorter, half_width)
    half_height = torch.where(square, shorter, half_height)
    jitter = torch.rand(n, 4, generator=generator) * 0.2 - 0.1
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    return torch.stack(
        [
            x + jitter[:, 0] * half_width,
            y + jitter[:, 1] * half_height,
            mirror * half_width * (1.1 + jitter[:, 2]),
            half_height * (1.1 + jitter[:, 3]),
        ],
        dim=1,
    )
