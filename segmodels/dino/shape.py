"""The loss that makes CLS know the shape of its photograph's object.

CLS of a masked box is what `instance_embeddings` takes for an instance. In runs of an hour neither
DINO's loss nor a contrast of objects (MaskContrast, Van Gansbeke et al. 2021) taught it more about
an object's class than an untrained network's has; how an object is shaped tells more than that.
"""

import torch
from torch import Tensor
from torch.nn import functional

from segmodels.backbones.pixels import IMAGENET_MEAN
from segmodels.dino.multicrop import Views, points_grid, recolour


def object_views(photos: Tensor, maps: Tensor, size: int, generator: torch.Generator) -> Views:
    """Cut each photograph's object out: the rest in the mean colour, about its box in the middle.

    Args:
        photos: (b, 3, S, S) float32 in [0, 1].
        maps: (b, cells, cells) in [0, 1]; a photograph without an object is shown whole.
        size: side of the views, px.
        generator: source of every random draw.
    """
    maps = torch.where(maps.amax(dim=(1, 2), keepdim=True) > 0.5, maps, 1.0)
    opacity = functional.interpolate(maps[:, None], photos.shape[-2:], mode="bilinear")
    opacity = (3 * opacity - 1).clamp(0, 1)
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    frames = _box_frames(maps > 0.5, generator)
    cut = torch.lerp(mean.expand_as(photos), photos, opacity)
    crops = functional.grid_sample(
        cut, points_grid(frames, size), padding_mode="border", align_corners=False
    )
    return Views(recolour(crops, generator), frames)


def shape_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross entropy of the object's share of each cell of a view, read off CLS.

    Args:
        logits: (n, cells * cells).
        shares: (n, cells * cells) in [0, 1]; views without an object do not count.
    """
    counted = shares.sum(dim=1) > 0.5
    if not counted.any():
        return logits.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(logits[counted].float(), shares[counted])


def _box_frames(inside: Tensor, generator: torch.Generator) -> Tensor:
    """Frames (b, 4) about the boxes of (b, cells, cells) bool, each side moved a little."""
    n, cells = inside.shape[:2]
    boxes = []
    for axis in (1, 2):
        line = inside.any(dim=axis).float()
        first, last = line.argmax(dim=1), cells - 1 - line.flip(1).argmax(dim=1)
        boxes.append(((first + last + 1) / cells - 1, (last + 1 - first) / cells))
    (x, half_width), (y, half_height) = boxes
    # As often the whole box as a square of its shorter side's length, like `centre_crop`.
    shorter = torch.minimum(half_width, half_height)
    square = torch.rand(n, generator=generator) < 0.5
    half_width = torch.where(square, shorter, half_width)
    half_height = torch.where(square, shorter, half_height)
    moved = torch.rand(n, 4, generator=generator) * 0.2 - 0.1
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    return torch.stack(
        [
            x + moved[:, 0] * half_width,
            y + moved[:, 1] * half_height,
            mirror * half_width * (1.1 + moved[:, 2]),
            half_height * (1.1 + moved[:, 3]),
        ],
        dim=1,
    )
