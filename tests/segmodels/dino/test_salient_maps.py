"""Maps of objects that pre-training learns from: what is found, with and without a backbone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretraining import blobs

from kernels.crf import CrfSettings, mean_field
from kernels.ncut import maskcut
from kernels.ncut.keys import center_keys
from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.backbone import Backbone
from segmodels.backbones.pixels import normalised_pixels, resize_square
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.dino.salient_maps import cached_maps, cut_out_maps, salient_map, salient_maps


def disc_in(image: np.ndarray) -> np.ndarray:
    """Where the disc of one of `blobs` lies: no disc reaches the corner."""
    return (image != image[0, 0]).any(axis=-1)


def cells_in(mask: np.ndarray, cells: int) -> np.ndarray:
    step = len(mask) // cells
    return mask.reshape(cells, step, cells, step).mean(axis=(1, 3)) > 0.5


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_the_disc_is_found_to_less_than_a_compared_square() -> None:
    found, squares = [], []
    for image in blobs(20, size=48):
        disc = disc_in(image)
        truth = cells_in(disc, 24)
        found.append(overlap(salient_map(image, 24) > 127, truth))
        # Colours are compared on 12 squares a side: the best that these could do by themselves.
        squares.append(overlap(np.kron(cells_in(disc, 12), np.ones((2, 2), bool)), truth))
    assert np.median(found) > 0.93
    assert np.median(found) > np.median(squares) + 0.05


def test_nothing_stands_out_of_an_even_image(tmp_path: Path) -> None:
    even = np.full((1, 24, 24, 3), 90, np.uint8)
    assert not salient_map(even[0], 12).any()
    path = tmp_path / "even.maps"
    assert not cached_maps(1, 12, path, lambda: salient_maps(even, 12), lambda _: None).any()


def test_maps_are_found_once(tmp_path: Path) -> None:
    images = blobs(6)
    said: list[str] = []
    calls: list[int] = []

    def find() -> Iterator[np.ndarray]:
        calls.append(1)
        return salient_maps(images, 12)

    first, again = (cached_maps(6, 12, tmp_path / "a.maps", find, said.append) for _ in range(2))
    assert len(calls) == len(said) == 1
    assert first.dtype == again.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.array_equal(first, np.stack([salient_map(image, 12) for image in images]))


def map_of(count: int) -> np.ndarray:
    """10 x 10 cells, so many of them salient."""
    return np.where(np.arange(100) < count, 128, 127).astype(np.uint8).reshape(10, 10)


def test_too_small_and_too_large_is_no_object(tmp_path: Path) -> None:
    counts = (0, 2, 3, 69, 70, 100)
    maps = [map_of(count) for count in counts]
    kept = cached_maps(6, 10, tmp_path / "six.maps", lambda: iter(maps), lambda _: None)
    assert [bool(one.any()) for one in kept] == [False, False, True, True, False, False]
    assert np.array_equal(kept[2:4], maps[2:4])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    shape = ViTShape(patch_size=8, dim=16, depth=2, num_heads=2, grid=6, hidden_dim=32)
    model = VisionTransformer(shape)
    model.initialise(torch.Generator().manual_seed(0))
    return Backbone("tiny", model, MaskCutAdvice(48, 0.9))


def enlarged(values: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def test_a_backbones_mask_is_joined_to_the_map_made_by_hand(backbone: Backbone) -> None:
    images = blobs(10)
    found = list(cut_out_maps(images, 12, backbone))
    assert len(found) == 10
    crf = CrfSettings(
        steps=5,
        smooth_std=1,
        smooth_compat=3,
        bilateral_std=25 * 24 / 112,
        colour_std=8,
        bilateral_compat=5,
    )
    pixels = np.stack([normalised_pixels(resize_square(image, 48)) for image in images])
    # Eight at a time.
    batches = torch.from_numpy(pixels).split(8)
    keys = torch.cat([backbone.extract(batch, "bfloat16").keys for batch in batches]).numpy()
    for image, key, got in zip(images, keys, found, strict=True):
        mask = maskcut(center_keys(key).reshape(36, 16), (6, 6), tau=0.3, max_masks=1).masks[0]
        joined = 0.6 * enlarged(mask, 12) + 0.4 * salient_map(image, 12) / 255
        object_ = enlarged(joined, 24).clip(0.05, 0.95)
        unary = -np.log(np.stack([1 - object_, object_]))
        marginal = mean_field(image, unary.astype(np.float32), crf)[1]
        expected = 255 * marginal.reshape(12, 2, 12, 2).mean(axis=(1, 3))
        assert got.dtype == np.uint8
        np.testing.assert_allclose(got, expected, atol=0.51)
    assert any(np.ptp(got) > 127 for got in found)
