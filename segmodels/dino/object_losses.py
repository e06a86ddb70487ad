"""What one step learns from the objects of its photographs: keys that cut them out, CLS their shape."""

from dataclasses import dataclass

import torch
from torch import Tensor

from segmodels.dino.multicrop import whole_views
from segmodels.dino.networks import Network, autocast
from segmodels.dino.salient import saliency_loss, salient_patches
from segmodels.dino.settings import PretrainSettings
from segmodels.dino.shape import object_views, shape_loss


@dataclass(frozen=True)
class ObjectTerms:
    """Losses of one step, and CLS (b, d) of the whole views."""

    saliency_loss: Tensor
    shape_loss: Tensor
    cls: Tensor


def object_terms(
    settings: PretrainSettings,
    student: Network,
    photos: Tensor,
    maps: Tensor,
    generator: torch.Generator,
) -> ObjectTerms:
    """Look at whole views, and at the objects alone.

    Args:
        settings: the run.
        student: the network that learns.
        photos: (b, 3, S, S) float32 in [0, 1].
        maps: (b, cells, cells) float32 in [0, 1], how salient they are.
        generator: source of every random draw.
    """
    saliency, shape = settings.saliency, settings.shape
    device = student.device
    views = whole_views(photos, saliency.view_size, saliency.view_scale, generator).to(device)
    on_device = maps.to(device)
    with autocast(settings, device):
        seen = student.backbone(views.pixels)
    salient = told = torch.zeros((), device=device)
    if saliency.weight:
        shares = salient_patches(on_device, views.frames, saliency.view_size // settings.patch_size)
        salient = saliency_loss(seen.keys, shares, saliency)
    if shape.weight:
        alone = object_views(photos, maps, shape.view_size, generator).to(device)
        with autocast(settings, device):
            cls = torch.cat([seen.cls, student.backbone(alone.pixels).cls])
            logits = student.shape_head(cls)
        frames = torch.cat([views.frames, alone.frames])
        told = shape_loss(logits, salient_patches(on_device.repeat(2, 1, 1), frames, shape.cells))
    return ObjectTerms(salient, told, seen.cls.detach())
