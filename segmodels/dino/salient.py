"""Where the salient regions of unlabelled photographs lie, found once before pre-training.

DINO's objective alone learns little about objects in a run of an hour. Hand-made saliency knows
something about them: the background of a photograph is connected to its border. A network that
learns it over thousands of photographs keeps what repeats and forgets the errors of single ones.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kernels.saliency import background_saliency
from segmodels.dino.multicrop import patch_points
from segmodels.dino.settings import SaliencySettings
from segmodels.formats.atomic import replacing
from segmodels.parallel import map_images

# Less than the first share of a photograph is no object, more than the second no background.
_SMALLEST_SHARE, _LARGEST_SHARE = 0.02, 0.7


def cached_saliency(
    photos: np.ndarray, path: Path, cells: int, say: Callable[[str], None] = print
) -> np.ndarray:
    """Find the salient cells of every photograph, once, and keep them in a file.

    Args:
        photos: (n, S, S, 3) uint8 RGB.
        path: where the result is kept; it must belong to these photographs alone.
        cells: squares a side.
        say: receives a line of text now and then.

    Returns:
        (n, cells, cells) bool; all False where nothing stands out.
    """
    if not path.is_file():
        say(f"finding the salient regions of {len(photos)} photographs")
        found = np.zeros((len(photos), cells, cells), bool)
        masks: Iterable[np.ndarray] = map_images(lambda photo: salient_cells(photo, cells), photos)
        for index, mask in enumerate(masks):
            found[index] = mask
            if (index + 1) % 5000 == 0:
                say(f"salient regions: {index + 1} of {len(photos)}")
        with replacing(path) as partial:
            partial.write_bytes(found.tobytes())
    return np.fromfile(path, bool).reshape(len(photos), cells, cells)


def salient_cells(photo: np.ndarray, cells: int) -> np.ndarray:
    """The cells of a photograph that stand out: (cells, cells) bool, all False for no object.

    Args:
        photo: (S, S, 3) uint8 RGB.
        cells: squares a side.
    """
    from PIL import Image
    from skimage.color import rgb2lab
    from skimage.filters import threshold_otsu

    side = 4 * cells
    small = Image.fromarray(np.asarray(photo)).resize((side, side), Image.Resampling.BOX)
    colours = rgb2lab(np.asarray(small)).reshape(cells, 4, cells, 4, 3).mean(axis=(1, 3))
    saliency = background_saliency(colours)
    salient: np.ndarray = saliency > threshold_otsu(saliency)
    share = salient.mean()
    return salient if _SMALLEST_SHARE < share < _LARGEST_SHARE else np.zeros_like(salient)


def salient_patches(salient: Tensor, frames: Tensor, grid: int) -> Tensor:
    """The share of each patch of a view that is salient.

    Args:
        salient: (n, cells, cells) bool.
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
    `reach` are asked nothing: they may belong to different objects.

    Args:
        keys: (n, grid * grid, d).
        salient: (n, grid * grid) share of each patch that is salient.
        settings: reach, tau and temperature.
    """
    counted = salient.sum(dim=1) > 0.5
    if not counted.any():
        return keys.sum() * 0.0
    keys, salient = keys[counted].float(), salient[counted]
    unit = functional.normalize(keys - keys.mean(dim=1, keepdim=True), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    rest = 1 - salient
    both = salient[:, :, None] * salient[:, None]
    together = both + rest[:, :, None] * rest[:, None]
    sides = [side / side.sum(dim=1, keepdim=True).clamp(min=1e-3) for side in (salient, rest)]
    weights = (sides[0] + sides[1]) / 2
    far = ~patches_within(settings.reach, round(salient.shape[1] ** 0.5)).to(keys.device)
    pairs = weights[:, :, None] * weights[:, None] * (1 - both * far)
    errors = functional.binary_cross_entropy_with_logits(
        (cosines - settings.tau) / settings.temperature, together, reduction="none"
    )
    return (errors * pairs).sum(dim=(1, 2)).mean()


def patches_within(reach: int, grid: int) -> Tensor:
    """Which patches lie within so many rows and columns of each other: (grid^2, grid^2) bool."""
    line = torch.arange(grid)
    places = torch.cartesian_prod(line, line)
    return (places[:, None] - places).abs().amax(dim=-1) <= reach
