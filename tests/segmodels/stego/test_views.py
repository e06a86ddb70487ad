"""STEGO's views of an image, working sizes and nearest neighbours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.backbone import Backbone
from segmodels.backbones.pixels import normalised_pixels
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.stego.crops import (
    NUM_VIEWS,
    centre_square,
    five_crops,
    training_views,
    working_size,
)
from segmodels.stego.features import (
    mean_features,
    neighbour_table,
    stego_features,
)
from segmodels.stego.settings import ViewSettings
from segmodels.stego.training import draw_positives


def numbered(height: int, width: int) -> np.ndarray:
    """An image whose first two channels are the row and the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)


def test_five_crops_are_the_corners_and_the_centre():
    crops = five_crops(numbered(8, 12), 0.5)
    assert [crop.shape for crop in crops] == [(4, 6, 3)] * 5
    assert [tuple(crop[0, 0, :2]) for crop in crops] == [(0, 0), (0, 6), (4, 0), (4, 6), (2, 3)]
    with pytest.raises(ValueError, match="crop_ratio"):
        five_crops(numbered(8, 12), 0.0)


def test_centre_square_keeps_the_middle_of_the_long_side():
    square = centre_square(numbered(8, 12), 8, "nearest")
    np.testing.assert_array_equal(square, numbered(8, 12)[:, 2:10])


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    resample=st.sampled_from(["nearest", "bilinear", "lanczos"]),
)
@settings(max_examples=20, deadline=None)
def test_views_are_squares_of_the_size_whatever_the_image(height, width, resample):
    views = training_views(numbered(height, width), 16, crop_ratio=0.5, resample=resample)
    assert views.shape == (NUM_VIEWS, 16, 16, 3)
    assert views.dtype == np.uint8


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (320, 432)),  # landscape: 426.7 to the nearest multiple of 16
        (640, 480, (432, 320)),  # portrait
        (100, 1000, (64, 640)),  # panorama: the long side's limit decides
        (10, 10, (320, 320)),  # small images are enlarged
        (1, 5000, (16, 640)),  # never less than a patch
    ],
)
def test_working_size(height: int, width: int, expected: tuple[int, int]):
    assert working_size(height, width, size=320, patch_size=16, long_side_limit=640) == expected


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    model = VisionTransformer(
        ViTShape(patch_size=8, dim=24, depth=2, num_heads=2, grid=4, hidden_dim=48)
    )
    model.initialise(torch.Generator().manual_seed(0))
    return Backbone("small", model, MaskCutAdvice(32, 0.2))


def test_features_are_the_tokens_of_the_six_views(backbone: Backbone):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    features = stego_features(image, backbone, ViewSettings(size=32))
    assert features.shape == (6, 4, 4, 24)
    assert features.dtype == np.float16
    views = training_views(image, 32, crop_ratio=0.5, resample="bilinear")
    pixels = torch.from_numpy(np.stack([normalised_pixels(view) for view in views]))
    np.testing.assert_allclose(features, backbone.extract(pixels).tokens, atol=2e-3)
    with pytest.raises(ValueError, match="multiple of the patch size 8, got 30"):
        stego_features(image, backbone, ViewSettings(size=30))


def test_mean_features_by_hand():
    features = np.zeros((1, 1, 2, 2), np.float16)
    features[0, 0] = [[6.0, 0.0], [0.0, 8.0]]
    np.testing.assert_allclose(mean_features(features), [[0.6, 0.8]], rtol=1e-6)


def test_neighbours_are_the_nearest_others_by_cosine():
    rng = np.random.default_rng(0)
    means = mean_features(rng.normal(size=(12, 2, 2, 5)))
    table = neighbour_table(means)
    similarity = means @ means.T
    np.fill_diagonal(similarity, -np.inf)
    np.testing.assert_array_equal(table, np.argsort(-similarity, axis=1)[:, :7])
    assert neighbour_table(means[:3]).shape == (3, 2)
    with pytest.raises(ValueError, match="at least 2 views"):
        neighbour_table(means[:1])


def test_positives_are_drawn_from_the_nearest_ranks_evenly():
    neighbours = np.arange(100, 110)[None, :] + np.array([[0], [1000]])
    rng = np.random.default_rng(0)
    drawn = draw_positives(neighbours, np.ones(7000, dtype=int), 7, rng)
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(1100, 1107))
    assert (abs(counts - 1000) < 150).all()
    few = draw_positives(neighbours[:, :2], np.zeros(50, dtype=int), 7, rng)
    assert set(few.tolist()) == {100, 101}
