"""The picture of what CLS looks at: its layout and its colours."""

import numpy as np

from segmodels.backbones import load_backbone
from segmodels.dino.attention_panel import attention_panel, heat


def test_heat_runs_from_dark_to_light_and_enlarges_patches() -> None:
    values = np.linspace(0, 2, 100).reshape(10, 10)
    picture = heat(values, 3)
    assert picture.shape == (30, 30, 3)
    lightness = picture[::3, ::3].astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness.ravel()) >= -1).all()
    assert lightness[0, 0] < 5
    assert lightness[-1, -1] > 230
    assert (picture[:3, :3] == picture[0, 0]).all()
    # The scale is the map's own.
    np.testing.assert_array_equal(heat(values / 1000, 3), picture)
    assert (heat(np.zeros((2, 2)), 1) == heat(np.zeros((1, 1)), 1)).all()


def test_a_row_shows_the_image_and_every_head() -> None:
    backbone = load_backbone("embedded")
    images = [np.full((60, 90, 3), value, np.uint8) for value in (40, 200)]
    panel = attention_panel(backbone, images, tile=32)
    # Six pixels between and around tiles, eighteen for a caption.
    assert panel.shape == (2 * (32 + 18 + 6) + 6, 4 * (32 + 6) + 6, 3)
    for row, value in enumerate((40, 200)):
        top = 6 + row * 56
        assert (panel[top + 2 : top + 30, 8:36] == value).all()
