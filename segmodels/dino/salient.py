"""The loss that makes keys tell what stands out of a photograph from its surroundings."""

import torch
from torch import Tensor
from torch.nn import functional

from segmodels.dino.multicrop import patch_points
from segmodels.dino.settings import SaliencySettings


def salient_patches(salient: Tensor, frames: Tensor, grid: int) -> Tensor:
    """The share of each patch of a view that is salient.

    Args:
        salient: (n, cells, cells) in [0, 1].
        frames: (n, 4), where the views lie in the photographs; see `multicrop.Views`.
        grid: patches a side of the views.

    Returns:
        (n, grid * grid) float32 in [0, 1].
    """
    points = patch_points(frames, grid)[:, :, None]
    table = salient[:, None].float()
    sampled = functional.grid_sample(table, points, padding_mode="border", align_corners=False)
    return sampled[:, 0, :, 0]


def saliency_loss(keys: Tensor, salient: Tensor, settings: SaliencySettings) -> Tensor:
    """Cross entropy of "these two patches lie on the same side", read off their keys' cosine.

    Keys are centred per view, as MaskCut takes them. Both sides of a view weigh the same, however
    large they are; views without a salient patch do not count. Salient patches farther apart than
    `reach` are asked nothing, as they may belong to different objects; patches of the surroundings
    as far apart count `far_background` only, as grass and sky may differ.

    Args:
        keys: (n, grid * grid, d).
        salient: (n, grid * grid) share of each patch that is salient.
        settings: reach, far_background, tau and temperature.
    """
    counted = salient.sum(dim=1) > 0.5
    if not counted.any():
        return keys.sum() * 0.0
    keys, salient = keys[counted].float(), salient[counted]
    unit = functional.normalize(keys - keys.mean(dim=1, keepdim=True), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    rest = 1 - salient
    both = salient[:, :, None] * salient[:, None]
    neither = rest[:, :, None] * rest[:, None]
    together = both + neither
    sides = [side / side.sum(dim=1, keepdim=True).clamp(min=1e-3) for side in (salient, rest)]
    weights = (sides[0] + sides[1]) / 2
    far = ~patches_within(settings.reach, round(salient.shape[1] ** 0.5)).to(keys.device)
    free = both + (1 - settings.far_background) * neither
    pairs = weights[:, :, None] * weights[:, None] * (1 - free * far)
    errors = functional.binary_cross_entropy_with_logits(
        (cosines - settings.tau) / settings.temperature, together, reduction="none"
    )
    return (errors * pairs).sum(dim=(1, 2)).mean()


def patches_within(reach: int, grid: int) -> Tensor:
    """Which patches lie within so many rows and columns of each other: (grid^2, grid^2) bool."""
    line = torch.arange(grid)
    places = torch.cartesian_prod(line, line)
    return (places[:, None] - places).abs().amax(dim=-1) <= reach
