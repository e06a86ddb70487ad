"""Stuff segments at image size, on images of two colours and a small untrained backbone."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.backbone import Backbone
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.formats.stuff import (
    STUFF_SCHEMA,
    stuff_instance_id,
    stuff_map,
    stuff_rows,
    stuff_table,
)
from segmodels.stego.features import mean_features, neighbour_table, stego_features
from segmodels.stego.loss import LossSettings, Term
from segmodels.stego.model import StegoModel
from segmodels.stego.segmentation import (
    cluster_log_probabilities,
    nearest_resize,
    segment_stuff,
)
from segmodels.stego.settings import SegmentationSettings, ViewSettings
from segmodels.stego.training import StegoSettings, train_stego

RED, BLUE = (200, 40, 30), (30, 60, 190)


def two_colours(height: int, width: int, split: int, *, seed: int = 0) -> np.ndarray:
    """Red left of `split`, blue right of it, with noise."""
    image = np.empty((height, width, 3))
    image[:, :split], image[:, split:] = RED, BLUE
    noise = np.random.default_rng(seed).normal(scale=12, size=image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    model = VisionTransformer(
        ViTShape(patch_size=8, dim=24, depth=1, num_heads=2, grid=8, hidden_dim=48)
    )
    model.initialise(torch.Generator().manual_seed(0))
    return Backbone("small", model, MaskCutAdvice(64, 0.2))


@pytest.fixture(scope="module")
def model(backbone: Backbone) -> StegoModel:
    views = np.concatenate(
        [
            stego_features(two_colours(60, 80, split, seed=split), backbone, ViewSettings(64))
            for split in (20, 40, 60)
        ]
    )
    half = Term(weight=1.0, positive_share=0.5)  # of two colours, half of all patches are alike
    loss = LossSettings(same=half, neighbour=half, random=half, shift="quantile", points=5)
    chosen = StegoSettings(
        steps=60, batch_size=8, dim=16, num_clusters=2, loss=loss, revive_every=5
    )
    return train_stego(views, neighbour_table(mean_features(views)), chosen)


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize(("height", "width"), [(61, 90), (90, 61), (64, 64)])
def test_every_pixel_of_any_shape_gets_its_texture(backbone, model, height, width, crf):
    split = width // 2
    image = two_colours(height, width, split, seed=7)
    clusters = segment_stuff(image, backbone, model, SegmentationSettings(size=64, crf=crf))
    assert clusters.shape == (height, width)
    assert clusters.dtype == np.uint8
    left, right = clusters[:, : split - 8], clusters[:, split + 8 :]
    assert left.max() == left.min()
    assert right.max() == right.min()
    assert left[0, 0] != right[0, 0]


def test_the_crf_moves_the_border_to_the_colours_edge(backbone, model):
    image = two_colours(64, 64, 29, seed=7)
    truth = np.arange(64)[None, :] >= 29
    errors = []
    for crf in (False, True):
        clusters = segment_stuff(image, backbone, model, SegmentationSettings(size=64, crf=crf))
        errors.append(np.mean((clusters == clusters[0, -1]) != truth))
    assert errors[1] <= errors[0]
    assert errors[1] < 0.01


def test_scores_do_not_know_left_from_right(backbone, model):
    image = two_colours(64, 96, 40)
    plain = cluster_log_probabilities(image, backbone, model)
    mirrored = cluster_log_probabilities(np.ascontiguousarray(image[:, ::-1]), backbone, model)
    np.testing.assert_allclose(plain, mirrored[:, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(np.exp(plain).sum(axis=0), 1, atol=1e-5)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
@settings(max_examples=30, deadline=None)
def test_nearest_resize_takes_the_pixel_under_the_centre(shape, size):
    labels = np.arange(shape[0] * shape[1]).reshape(shape)
    resized = nearest_resize(labels, *size)
    assert resized.shape == size
    for y, x in np.ndindex(size):
        row = (2 * y + 1) * shape[0] // (2 * size[0])
        column = (2 * x + 1) * shape[1] // (2 * size[1])
        assert resized[y, x] == labels[row, column]


def test_rows_hold_one_mask_a_cluster_and_come_back():
    clusters = np.array([[0, 0, 5], [5, 2, 2]], dtype=np.uint8)
    table = stuff_table(stuff_rows(3, clusters))
    assert table.schema == STUFF_SCHEMA
    chosen = table.select(["image_id", "cluster_id", "area", "source", "instance_id"])
    assert [tuple(row.values()) for row in chosen.to_pylist()] == [
        (3, 0, 2, "stego", -3001),
        (3, 2, 2, "stego", -3003),
        (3, 5, 2, "stego", -3006),
    ]
    np.testing.assert_array_equal(stuff_map(table, 2, 3), clusters)
    assert (stuff_map(table.slice(0, 0), 2, 3) == -1).all()
    with pytest.raises(ValueError, match="must have their image's size"):
        stuff_map(table, 3, 2)


def test_stuff_ids_fit_the_largest_image_id():
    largest = stuff_instance_id(2**53 - 1, 999)
    assert pa.array([largest], pa.int64()).to_pylist() == [largest]
    with pytest.raises(ValueError, match="got 1000"):
        stuff_instance_id(1, 1000)
