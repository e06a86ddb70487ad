"""Saliency loss: keys of salient patches unlike keys of the background."""

import torch
from torch import Tensor
from torch.nn import functional

from segmodels.dino.multicrop import patch_points
from segmodels.dino.settings import SaliencySettings


def salient_patches(salient: Tensor, frames: Tensor, grid: int) -> Tensor:
    """Saliency of each patch of a view, sampled at the patch centres.

    Args:
        salient: (n, cells, cells) in [0, 1], maps of the images.
        frames: (n, 4) of the views; see `multicrop.Views`.
        grid: patches a side of the views.

    Returns:
        (n, grid * grid) float32 in [0, 1].
    """
    points = patch_points(frames, grid)[:, :, None]
    table = salient[:, None].float()
    sampled = functional.grid_sample(table, points, padding_mode="border", align_corners=False)
    return sampled[:, 0, :, 0]


def saliency_loss(keys: Tensor, salient: Tensor, settings: SaliencySettings) -> Tensor:
    """Cross entropy of "both patches are salient or both background" from the cosine of their keys.

    Keys are centred per view, as for MaskCut. Object and background of a view weigh the same; views
    without a salient patch do not count. Pairs farther apart than `reach` are left out where both
    patches are salient, as they may show different objects, and have the weight `far_background`
    where both are background, as grass and sky may differ.

    Args:
        keys: (n, grid * grid, d).
        salient: (n, grid * grid) in [0, 1], saliency of each patch.
        settings: reach, far_background, tau and temperature.

    Returns:
        A scalar tensor.
    """
    counted = salient.sum(dim=1) > 0.5
    if not counted.any():
        return keys.sum() * 0.0
    keys, salient = keys[counted].float(), salient[counted]
    unit = functional.normalize(keys - keys.mean(dim=1, keepdim=True), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    background = 1 - salient
    both = salient[:, :, None] * salient[:, None]
    neither = background[:, :, None] * background[:, None]
    together = both + neither
    sides = [side / side.sum(dim=1, keepdim=True).clamp(min=1e-3) for side in (salient, background)]
    weights = (sides[0] + sides[1]) / 2
    far = ~patches_within(settings.reach, round(salient.shape[1] ** 0.5)).to(keys.device)
    free = both + (1 - settings.far_background) * neither
    pairs = weights[:, :, None] * weights[:, None] * (1 - free * far)
    errors = functional.binary_cross_entropy_with_logits(
        (cosines - settings.tau) / settings.temperature, together, reduction="none"
    )
    return (errors * pairs).sum(dim=(1, 2)).mean()


def patches_within(reach: int, grid: int) -> Tensor:
    """Pairs of patches at most `reach` rows and columns apart: (grid^2, grid^2) bool."""
    line = torch.arange(grid)
    positions = torch.cartesian_prod(line, line)
    return (positions[:, None] - positions).abs().amax(dim=-1) <= reach
