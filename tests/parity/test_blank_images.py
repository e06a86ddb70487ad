"""Images of one colour, which have nothing to cut, through the backbone and MaskCut."""

import numpy as np
import pytest
import torch

from segmodels.backbones import load_backbone
from segmodels.backbones.pixels import normalised_pixels
from segmodels.cutler.maskcut import MaskCutSettings, discover_masks

SIDE = 96


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_image_of_one_colour_has_finite_keys_and_valid_masks(level):
    backbone = load_backbone("embedded")
    image = np.full((60, 80, 3), level, np.uint8)
    square = np.full((SIDE, SIDE, 3), level, np.uint8)
    keys = backbone.extract(torch.from_numpy(normalised_pixels(square))[None]).keys[0].numpy()
    assert np.isfinite(keys).all()

    settings = MaskCutSettings(image_size=SIDE, tau=backbone.tau, center_keys=backbone.center_keys)
    for found in discover_masks([image], keys[None], settings)[0].masks:
        assert found.mask.shape == (60, 80)
        assert found.mask.any()
        assert 0.5 <= found.score <= 1
