"""Objects known again: CLS of a photograph and of its object alone, against other photographs'.

MaskContrast (Van Gansbeke et al., ICCV 2021) takes salient objects as what two views have in
common; here the second view is the object cut out, as `instance_embeddings` will show it to the
backbone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.dino.distributed import Group
from segmodels.dino.multicrop import Views, points_grid, recolour
from segmodels.dino.pixels import IMAGENET_MEAN

PROJECTION = 128


class ObjectMemory(nn.Module):
    """The embeddings of the last objects, oldest first, as further examples of what differs."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.held: Tensor
        self.register_buffer("held", torch.zeros(length, PROJECTION))
        self.count: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def rows(self) -> Tensor:
        """What is remembered, (at most `length`, PROJECTION)."""
        return self.held[self.length - int(self.count) :]

    @torch.no_grad()
    def add(self, embeddings: Tensor) -> None:
        """Remember (n, PROJECTION) more and forget the oldest."""
        new = embeddings.detach()[-self.length :].to(self.held)
        self.held.copy_(torch.cat([self.held, new])[-self.length :])
        self.count.add_(len(new)).clamp_(max=self.length)


def projection_head(dim: int) -> nn.Sequential:
    """MLP from CLS (n, dim) to (n, PROJECTION)."""
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, PROJECTION))


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


def contrast_loss(
    whole: Tensor, objects: Tensor, memory: ObjectMemory, temperature: float, group: Group
) -> Tensor:
    """Cross entropy of finding a photograph's other view among the batch's and the remembered.

    Args:
        whole, objects: (b, PROJECTION) projections of photographs and of their objects.
        memory: receives the objects of all processes.
        temperature: of the cosines.
        group: the processes that share the step.

    Returns:
        Mean over both views of this process's photographs; what is remembered has no gradient.
    """
    size = len(whole)
    views = functional.normalize(torch.cat([whole, objects]).float(), dim=-1)
    cosines = views @ torch.cat([views, memory.rows()]).T
    itself = torch.eye(len(views), cosines.shape[1], dtype=torch.bool, device=cosines.device)
    logits = cosines.masked_fill(itself, float("-inf")) / temperature
    partner = torch.arange(2 * size, device=cosines.device).roll(size)
    memory.add(group.gathered(views[size:].detach()))
    return functional.cross_entropy(logits, partner)


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
