"""Multi-crop views of images, cut and recoloured in batches (DINO sec. 3.1)."""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.nn import functional

from segmodels.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD
from segmodels.dino.settings import CropSettings

_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Views:
    """Crops of a batch.

    Attributes:
        pixels: (n, 3, s, s) float32, normalised RGB; the first view of all images, then the second.
        frames: (n, 4) float32, centre x, centre y, half width and half height in the image's
            coordinates from -1 to 1; a negative half width is a mirrored crop.
    """

    pixels: Tensor
    frames: Tensor

    def to(self, device: torch.device) -> "Views":
        """These views on a device."""
        return Views(self.pixels.to(device), self.frames.to(device))


def multicrop(
    images: Tensor, settings: CropSettings, generator: torch.Generator
) -> tuple[Views, Views]:
    """Two global crops and `num_local` local crops of each image.

    Args:
        images: (b, 3, S, S) float32 in [0, 1].
        settings: sizes, scales and numbers of crops.
        generator: source of every random draw.

    Returns:
        Global views (2 * b) and local views (num_local * b).
    """
    s = settings
    globals_ = random_views(images, 2, s.global_size, s.global_scale, generator)
    return globals_, random_views(images, s.num_local, s.local_size, s.local_scale, generator)


def random_views(
    images: Tensor, count: int, size: int, scale: tuple[float, float], generator: torch.Generator
) -> Views:
    """`count` random crops of each image, resized to `size` px; `scale`: range of their area."""
    return views_at(images, _frames(count * len(images), scale, generator), size, generator)


def views_at(images: Tensor, frames: Tensor, size: int, generator: torch.Generator) -> Views:
    """Recoloured crops of images (b, 3, S, S) at frames (count * b, 4), resized to `size` px."""
    # The sampling positions of a crop's pixels are the centres of its patches of one pixel.
    grid = torch.unflatten(patch_points(frames, size), 1, (size, size))
    crops = [
        functional.grid_sample(images, part, padding_mode="border", align_corners=False)
        for part in grid.chunk(len(frames) // len(images))
    ]
    return Views(recolour(torch.cat(crops), generator), frames)


def patch_points(frames: Tensor, grid: int) -> Tensor:
    """Centres of a crop's patches in the image's coordinates.

    Args:
        frames: (n, 4), see `Views`.
        grid: patches a side.

    Returns:
        (n, grid * grid, 2) x and y, rows first.
    """
    line = (torch.arange(grid, dtype=frames.dtype) * 2 + 1) / grid - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    inside = torch.stack([x.flatten(), y.flatten()], dim=1).to(frames.device)
    return frames[:, None, :2] + inside * frames[:, None, 2:]


def points_in_crop(points: Tensor, frames: Tensor) -> Tensor:
    """Points of the image in the coordinates of a crop, -1 to 1 inside it.

    Args:
        points: (n, t, 2) x and y.
        frames: (n, 4), see `Views`.
    """
    return (points - frames[:, None, :2]) / frames[:, None, 2:]


def _frames(n: int, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw random resized crops with horizontal flips: frames (n, 4)."""
    area = torch.empty(n).uniform_(*scale, generator=generator)
    ratio = torch.empty(n).uniform_(-log(4 / 3), log(4 / 3), generator=generator).exp()
    half = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1.0)
    centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - half)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    half[:, 0] *= mirror
    return torch.cat([centre, half], dim=1)


def recolour(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Colour jitter, grey scale, blur and solarisation at random, then normalisation.

    Args:
        crops: (n, 3, s, s) float32 in [0, 1].
        generator: source of every random draw.

    Returns:
        (n, 3, s, s) float32, normalised by ImageNet's mean and standard deviation.
    """
    n = len(crops)

    def chosen(probability: float) -> Tensor:
        return (torch.rand(n, generator=generator) < probability).float()

    def around_one(strength: float, mask: Tensor) -> Tensor:
        draw = torch.empty(n).uniform_(-strength, strength, generator=generator)
        return 1 + draw * mask

    jittered = chosen(0.8)
    brightness = around_one(0.4, jittered)
    contrast = around_one(0.4, jittered)
    saturation = around_one(0.4, jittered) * (1 - chosen(0.2))
    tint = torch.empty(n, 3).uniform_(-0.15, 0.15, generator=generator) * jittered[:, None]

    # All of these are affine in the pixel: one 3 x 3 matrix and one offset a crop.
    grey = torch.tensor(_GREY)
    to_grey = grey.expand(3, 3)
    matrix = saturation[:, None, None] * torch.eye(3) + (1 - saturation)[:, None, None] * to_grey
    matrix = matrix * (1 + tint * saturation[:, None])[:, :, None]
    matrix = matrix * (brightness * contrast)[:, None, None]
    mean_grey = (crops.mean(dim=(2, 3)) @ grey) * brightness
    offset = (1 - contrast) * mean_grey
    crops = torch.einsum("nij,njhw->nihw", matrix, crops) + offset[:, None, None, None]
    crops = crops.clamp(0, 1)

    blurred = functional.avg_pool2d(functional.pad(crops, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = torch.rand(n, generator=generator) * chosen(0.5)
    crops = torch.lerp(crops, blurred, amount[:, None, None, None])
    solarised = chosen(0.1)[:, None, None, None] * (crops > 0.5)
    crops = torch.where(solarised > 0, 1 - crops, crops)
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    return (crops - mean) / torch.tensor(IMAGENET_STD)[:, None, None]
