"""Pseudo maps of the objects in unlabelled images, computed once before pre-training.

In a run of an hour, DINO's loss alone learns little about objects. Hand-made saliency has a prior
for them: the background of an image is connected to its border. A network trained on such maps of
thousands of images averages their errors out; MaskCut on its keys gives better maps for a further
run (DeepUSPS, Nguyen et al. 2019, refines hand-made maps in such rounds).
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

# Range of the share of an image that an object may cover.
_SMALLEST_SHARE, _LARGEST_SHARE = 0.02, 0.7
# Standard deviation of the saliency below which nothing stands out.
_SMALLEST_STD = 1e-6
# Tuned on images of 112 px.
_CRF = CrfSettings(
    smooth_std=1, smooth_compat=3, bilateral_std=25, colour_std=8, bilateral_compat=5
)
_CRF_SIDE = 112
# The CRF cannot overrule a probability nearer to 0 or 1 than this.
_PROBABILITY_MARGIN = 0.05
# MaskCut runs on images enlarged this much; its mask weighs more than the hand-made map.
_ENLARGEMENT, _TAU, _MASK_WEIGHT = 2, 0.3, 0.6
_BATCH = 8


def salient_map(image: NDArray[np.uint8], cells: int) -> Maps:
    """Saliency of an image by background connectivity, refined by a dense CRF.

    Args:
        image: (S, S, 3) uint8 RGB, S a multiple of `cells`.
        cells: side of the map, even; colours are compared on half as many cells.

    Returns:
        (cells, cells) uint8, 255 is certainly salient; all 0 where nothing stands out.
    """
    from skimage.color import rgb2lab
    from skimage.filters import threshold_otsu

    coarse = cells // 2
    side = 4 * coarse
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    colours = rgb2lab(np.asarray(small)).reshape(coarse, 4, coarse, 4, 3).mean(axis=(1, 3))
    saliency = _enlarged(background_saliency(colours), len(image))
    deviation = saliency.std()
    if deviation < _SMALLEST_STD:
        return np.zeros((cells, cells), np.uint8)
    threshold = threshold_otsu(saliency)  # type: ignore[no-untyped-call]
    distance = (saliency - threshold) / (deviation + 1e-6)
    return _refined(image, 1 / (1 + np.exp(-2 * distance)), cells, _CRF)


def salient_maps(images: np.ndarray, cells: int) -> Iterator[Maps]:
    """Yield the `salient_map` of each image (S, S, 3) uint8, in order."""
    return map_images(lambda image: salient_map(np.asarray(image), cells), images)


def cut_out_maps(images: np.ndarray, cells: int, backbone: "Backbone") -> Iterator[Maps]:
    """Yield a map of each image: the mean of MaskCut's first mask and the hand-made map.

    Args:
        images: (n, S, S, 3) uint8 RGB; twice S must be a multiple of the patch size.
        cells: side of the maps.
        backbone: gives the keys, which are centred for MaskCut.
    """
    import torch

    from kernels.ncut import maskcut
    from kernels.ncut.keys import center_keys

    def refined_cut(image: np.ndarray, keys: np.ndarray) -> Maps:
        grid = keys.shape[:2]
        cut = maskcut(center_keys(keys).reshape(grid[0] * grid[1], -1), grid, tau=_TAU, max_masks=1)
        mask = _enlarged(cut.masks[0].astype(np.float32), cells)
        mean = _MASK_WEIGHT * mask + (1 - _MASK_WEIGHT) / 255 * salient_map(image, cells)
        return _refined(image, _enlarged(mean, len(image)), cells, replace(_CRF, steps=5))

    for first in range(0, len(images), _BATCH):
        batch = [np.asarray(image) for image in images[first : first + _BATCH]]
        side = _ENLARGEMENT * len(batch[0])
        pixels = np.stack([normalised_pixels(resize_square(image, side)) for image in batch])
        keys = backbone.extract(torch.from_numpy(pixels), "bfloat16").keys.cpu().numpy()
        yield from map_images(lambda pair: refined_cut(*pair), list(zip(batch, keys, strict=True)))


def cached_maps(
    count: int,
    cells: int,
    path: Path,
    compute: Callable[[], Iterator[Maps]],
    log: Callable[[str], None] = print,
) -> Maps:
    """Compute the maps of all images once; keep them in a file.

    Args:
        count: number of images.
        cells: side of a map.
        path: file of the result; its name must be unique to the images and the method.
        compute: yields the maps in order.
        log: takes a sentence at the start and after each 1000 images.

    Returns:
        (count, cells, cells) uint8; all 0 where the salient share is too small or too large.
    """
    if not path.is_file():
        log(f"finding the objects of {count} images")
        maps = np.zeros((count, cells, cells), np.uint8)
        for index, found in enumerate(compute()):
            maps[index] = found
            if (index + 1) % 1000 == 0:
                log(f"objects: {index + 1} of {count} images")
        share = (maps > 127).mean(axis=(1, 2))
        maps[(share <= _SMALLEST_SHARE) | (share >= _LARGEST_SHARE)] = 0
        with replacing(path) as partial:
            partial.write_bytes(maps.tobytes())
    return np.fromfile(path, np.uint8).reshape(count, cells, cells)


def _refined(
    image: NDArray[np.uint8], probability: NDArray[np.floating], cells: int, crf: CrfSettings
) -> Maps:
    """Move the edges of a map (S, S) in [0, 1] to the image's by a CRF; average it over cells."""
    side = len(image)
    crf = replace(crf, bilateral_std=crf.bilateral_std * side / _CRF_SIDE)
    clipped = np.clip(probability, _PROBABILITY_MARGIN, 1 - _PROBABILITY_MARGIN)
    unary = np.stack([-np.log(1 - clipped), -np.log(clipped)]).astype(np.float32)
    marginal = mean_field(image, unary, crf)[1]
    step = side // cells
    share = marginal.reshape(cells, step, cells, step).mean(axis=(1, 3))
    return np.asarray(np.round(255 * share), np.uint8)


def _enlarged(values: NDArray[np.floating], side: int) -> NDArray[np.float32]:
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
