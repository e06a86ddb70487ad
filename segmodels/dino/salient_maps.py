"""Where the objects of unlabelled photographs may lie, found once before pre-training.

DINO's objective alone learns little about objects in a run of an hour. Hand-made saliency knows
something about them: the background of a photograph is connected to its border. A network that
learns it over thousands of photographs keeps what repeats and forgets the errors of single ones;
what MaskCut then cuts out with that network is a better map, for one more run (DeepUSPS, Nguyen et
al. 2019, refines hand-made maps by networks in such rounds).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kernels.crf import CrfSettings, mean_field
from kernels.saliency import background_saliency
from segmodels.backbones.pixels import normalised_pixels, resize_square
from segmodels.engine.parallel import map_images
from segmodels.formats.atomic import replacing

if TYPE_CHECKING:
    from segmodels.backbones.backbone import Backbone

Maps = NDArray[np.uint8]

# Less than the first share of a photograph is no object, more than the second no background.
_SMALLEST_SHARE, _LARGEST_SHARE = 0.02, 0.7
# Nothing stands out where saliency spreads less than this.
_NOTHING = 1e-6
# Chosen on photographs of 112 px.
_CRF = CrfSettings(
    smooth_std=1, smooth_compat=3, bilateral_std=25, colour_std=8, bilateral_compat=5
)
_CRF_SIDE = 112
# A unary nearer to 0 or 1 would not let the CRF change its mind.
_LEAST_DOUBT = 0.05
# MaskCut looks at photographs of twice their size, and counts more than the hand-made map.
_ENLARGEMENT, _TAU, _MASK_WEIGHT = 2, 0.3, 0.6
_BATCH = 8


def salient_map(photo: NDArray[np.uint8], cells: int) -> Maps:
    """Find what stands out of a photograph by background connectivity and a dense CRF.

    Args:
        photo: (S, S, 3) uint8 RGB, S a multiple of `cells`.
        cells: squares a side, even; colours are compared on half as many.

    Returns:
        (cells, cells) uint8, 255 for certainly salient; 128 throughout an even photograph.
    """
    from skimage.color import rgb2lab
    from skimage.filters import threshold_otsu

    coarse = cells // 2
    side = 4 * coarse
    small = Image.fromarray(photo).resize((side, side), Image.Resampling.BOX)
    colours = rgb2lab(np.asarray(small)).reshape(coarse, 4, coarse, 4, 3).mean(axis=(1, 3))
    saliency = _enlarged(background_saliency(colours), len(photo))
    spread = saliency.std()
    if spread < _NOTHING:
        return np.zeros((cells, cells), np.uint8)
    distance = (saliency - threshold_otsu(saliency)) / (spread + 1e-6)
    return _refined(photo, 1 / (1 + np.exp(-2 * distance)), cells, _CRF)


def salient_maps(photos: np.ndarray, cells: int) -> Iterator[Maps]:
    """Yield the `salient_map` of each photograph (S, S, 3) uint8 in turn."""
    return map_images(lambda photo: salient_map(np.asarray(photo), cells), photos)


def cut_out_maps(photos: np.ndarray, cells: int, backbone: "Backbone") -> Iterator[Maps]:
    """Yield a map of each photograph that joins a backbone's first mask to the hand-made map.

    Args:
        photos: (n, S, S, 3) uint8 RGB; twice S must be a multiple of the patch size.
        cells: squares a side.
        backbone: its keys are centred and cut by MaskCut.
    """
    import torch

    from kernels.ncut import maskcut
    from kernels.ncut.affinity import center_keys

    def found(photo: np.ndarray, keys: np.ndarray) -> Maps:
        grid = keys.shape[:2]
        cut = maskcut(center_keys(keys).reshape(grid[0] * grid[1], -1), grid, tau=_TAU, max_masks=1)
        mask = _enlarged(cut.masks[0].astype(np.float32), cells)
        joined = _MASK_WEIGHT * mask + (1 - _MASK_WEIGHT) / 255 * salient_map(photo, cells)
        return _refined(photo, _enlarged(joined, len(photo)), cells, replace(_CRF, steps=5))

    for first in range(0, len(photos), _BATCH):
        batch = [np.asarray(photo) for photo in photos[first : first + _BATCH]]
        side = _ENLARGEMENT * len(batch[0])
        pixels = np.stack([normalised_pixels(resize_square(photo, side)) for photo in batch])
        keys = backbone.extract(torch.from_numpy(pixels), "bfloat16").keys.cpu().numpy()
        yield from map_images(lambda pair: found(*pair), list(zip(batch, keys, strict=True)))


def cached_maps(
    count: int,
    cells: int,
    path: Path,
    find: Callable[[], Iterator[Maps]],
    say: Callable[[str], None] = print,
) -> Maps:
    """Find the maps of all photographs once, and keep them in a file.

    Args:
        count: photographs.
        cells: squares a side of a map.
        path: where the result is kept; it must belong to these photographs and this way alone.
        find: gives the maps in turn.
        say: receives a line of text now and then.

    Returns:
        (count, cells, cells) uint8; all 0 where too little or too much is found for an object.
    """
    if not path.is_file():
        say(f"finding the objects of {count} photographs")
        maps = np.zeros((count, cells, cells), np.uint8)
        for index, one in enumerate(find()):
            maps[index] = one
            if (index + 1) % 1000 == 0:
                say(f"objects: {index + 1} of {count} photographs")
        share = (maps > 127).mean(axis=(1, 2))
        maps[(share <= _SMALLEST_SHARE) | (share >= _LARGEST_SHARE)] = 0
        with replacing(path) as partial:
            partial.write_bytes(maps.tobytes())
    return np.fromfile(path, np.uint8).reshape(count, cells, cells)


def _refined(
    photo: NDArray[np.uint8], probability: NDArray[np.floating], cells: int, crf: CrfSettings
) -> Maps:
    """Let a CRF move the edges of a map (S, S) to the photograph's; reduce it to cells."""
    side = len(photo)
    crf = replace(crf, bilateral_std=crf.bilateral_std * side / _CRF_SIDE)
    sure = np.clip(probability, _LEAST_DOUBT, 1 - _LEAST_DOUBT)
    unary = np.stack([-np.log(1 - sure), -np.log(sure)]).astype(np.float32)
    marginal = mean_field(photo, unary, crf)[1]
    step = side // cells
    share = marginal.reshape(cells, step, cells, step).mean(axis=(1, 3))
    return np.asarray(np.round(255 * share), np.uint8)


def _enlarged(values: NDArray[np.floating], side: int) -> NDArray[np.float32]:
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
