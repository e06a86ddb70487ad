"""Losses of one step on the objects of its images: keys separate them, CLS encodes their shape."""

from dataclasses import dataclass

import torch
from torch import Tensor

from segmodels.dino.multicrop import random_views
from segmodels.dino.networks import Network
from segmodels.dino.saliency_loss import saliency_loss, salient_patches
from segmodels.dino.settings import SaliencySettings, ShapeSettings
from segmodels.dino.shape_loss import object_views, shape_loss


@dataclass(frozen=True)
class ObjectTerms:
    """Losses of one step, and CLS (b, d) of the whole views."""

    saliency_loss: Tensor
    shape_loss: Tensor
    cls: Tensor


def object_terms(
    student: Network,
    images: Tensor,
    maps: Tensor,
    saliency: SaliencySettings,
    shape: ShapeSettings,
    generator: torch.Generator,
) -> ObjectTerms:
    """Saliency loss on whole views; shape loss on whole views and on views of the object alone.

    Args:
        student: the network that is trained.
        images: (b, 3, S, S) float32 in [0, 1].
        maps: (b, cells, cells) float32 in [0, 1], saliency of the images.
        saliency, shape: settings of the losses; a weight of 0 leaves a loss out.
        generator: source of every random draw.
    """
    device = student.device
    views = random_views(images, 1, saliency.view_size, saliency.view_scale, generator).to(device)
    on_device = maps.to(device)
    with student.autocast():
        whole = student.backbone(views.pixels)
    keys_loss = cls_loss = torch.zeros((), device=device)
    if saliency.weight:
        shares = salient_patches(
            on_device, views.frames, saliency.view_size // student.backbone.shape.patch_size
        )
        keys_loss = saliency_loss(whole.keys, shares, saliency)
    if shape.weight:
        alone = object_views(images, maps, shape.view_size, generator).to(device)
        with student.autocast():
            cls = torch.cat([whole.cls, student.backbone(alone.pixels).cls])
            logits = student.shape_head(cls)
        frames = torch.cat([views.frames, alone.frames])
        cls_loss = shape_loss(
            logits, salient_patches(on_device.repeat(2, 1, 1), frames, shape.cells)
        )
    return ObjectTerms(keys_loss, cls_loss, whole.cls.detach())
