"""What one step learns from the objects of its photographs: keys that cut them out, CLS to know them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segmodels.dino.contrast import ObjectMemory, contrast_loss, object_views
from segmodels.dino.distributed import Group
from segmodels.dino.multicrop import whole_views
from segmodels.dino.networks import Network, autocast
from segmodels.dino.salient import saliency_loss, salient_patches
from segmodels.dino.settings import PretrainSettings


@dataclass(frozen=True)
class ObjectTerms:
    """Losses of one step, and CLS (b, d) of the whole views."""

    saliency_loss: Tensor
    contrast_loss: Tensor
    cls: Tensor


class ObjectLosses(nn.Module):
    """Holds the memory of earlier objects."""

    def __init__(self, settings: PretrainSettings, group: Group) -> None:
        super().__init__()
        self.settings = settings
        self.group = group
        self.memory = ObjectMemory(settings.contrast.memory)

    def forward(
        self, student: Network, photos: Tensor, maps: Tensor, generator: torch.Generator
    ) -> ObjectTerms:
        """Look at whole views, and at the objects alone.

        Args:
            student: the network that learns.
            photos: (b, 3, S, S) float32 in [0, 1].
            maps: (b, cells, cells) float32 in [0, 1], how salient they are.
            generator: source of every random draw.
        """
        saliency, contrast = self.settings.saliency, self.settings.contrast
        device = student.device
        views = whole_views(photos, saliency.view_size, saliency.view_scale, generator).to(device)
        with autocast(self.settings, device):
            seen = student.backbone(views.pixels)
        salient_loss = torch.zeros((), device=device)
        if saliency.weight:
            grid = saliency.view_size // self.settings.patch_size
            shares = salient_patches(maps.to(device), views.frames, grid)
            salient_loss = saliency_loss(seen.keys, shares, saliency)
        told_apart = torch.zeros((), device=device)
        if contrast.weight:
            alone = object_views(photos, maps, contrast.view_size, generator).to(device)
            with autocast(self.settings, device):
                known = student.backbone(alone.pixels)
                whole, objects = (student.object_head(one.cls) for one in (seen, known))
            told_apart = contrast_loss(
                whole, objects, self.memory, contrast.temperature, self.group
            )
        return ObjectTerms(salient_loss, told_apart, seen.cls.detach())
