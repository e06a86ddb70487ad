"""A backbone's measures, worked by hand, and on features that know the truth."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from input_files import coco, scan
from PIL import Image

from kernels import rle
from segmodels.backbones import load_backbone
from segmodels.backbones.pixels import normalised_pixels, resize_square
from segmodels.datasets.ground_truth import load_ground_truth
from segmodels.datasets.image_source import ImageSource
from segmodels.diagnostics.backbone_quality import (
    AnnotatedImage,
    ClassNeighbours,
    annotated_images,
    class_neighbours,
    instance_quality,
    keys_overlaps,
    mask_scores,
    neighbour_shares,
    object_overlaps,
    overlap,
    patch_truth,
)
from segmodels.diagnostics.patch_features import BackboneFeatures

PATCH, GRID = 16, 8
SIZE = PATCH * GRID
# Patches (rows, columns) of two objects that do not touch.
FIRST, SECOND = (slice(1, 4), slice(1, 4)), (slice(5, 8), slice(3, 7))


def scene(image_id, classes=(1, 2), crowd=False):
    """An image whose first channel numbers its objects and whose second holds their classes."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    rows = []
    for number, (place, class_id) in enumerate(
        zip((FIRST, SECOND), classes, strict=False), start=1
    ):
        mask = np.zeros((GRID, GRID), bool)
        mask[place] = True
        mask = mask.repeat(PATCH, axis=0).repeat(PATCH, axis=1)
        image[mask] = (number, class_id, 0)
        rows.append(row(image_id, class_id, mask, iscrowd=int(crowd)))
    return AnnotatedImage(image_id, image, rows)


def row(image_id, class_id, mask, **more):
    (counts,) = rle.encode(mask[None])
    return {
        "image_id": image_id,
        "category_id": class_id,
        "bbox": rle.bbox_xywh([counts], *mask.shape)[0].tolist(),
        "area": float(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": counts.decode()},
        **more,
    }


@dataclass
class Oracle:
    """Features that read the truth off a scene's pixels."""

    image_size: int = SIZE
    tau: float = 0.15
    center_keys: bool = False

    def keys(self, image):
        return np.eye(3, dtype=np.float32)[image[::PATCH, ::PATCH, 0]]

    def embed(self, image, masks):
        return np.eye(4, dtype=np.float32)[[image[mask][0, 1] for mask in masks]]


@dataclass
class Blind(Oracle):
    """One patch, which nothing can be cut from, and one vector for all instances."""

    def keys(self, image):
        return np.ones((1, 1, 3), np.float32)

    def embed(self, image, masks):
        return np.ones((len(masks), 4), np.float32)


# Overlap, truth at patch resolution


def test_overlap():
    a, b = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    assert overlap(a, b) == 1
    a[:, :2] = True
    assert overlap(a, b) == 0
    b[0, 1:] = True
    assert overlap(a, b) == 1 / 6


def test_a_patch_belongs_to_a_mask_that_covers_more_than_half_of_it():
    mask = np.zeros((4, 8), bool)
    mask[:2, :4] = True  # a whole patch
    mask[2:, 0] = True  # a quarter of a patch
    mask[2:, 4:6] = True  # half of one
    mask[0, 4:] = mask[1, 4] = True  # five eighths
    np.testing.assert_array_equal(patch_truth(mask, 2), [[True, True], [False, False]])


def test_objects_that_keys_tell_apart_are_found():
    scenes = [scene(1), scene(2, classes=(1,))]
    masks = [one.image[..., 0] == number for one, number in zip(scenes, (2, 1), strict=True)]
    found = object_overlaps(Oracle(), [one.image for one in scenes], masks)
    # The larger object is cut first or second; with one object there is nothing else to cut.
    assert found.best.tolist() == [1, 1]
    assert found.first[1] == 1
    again = keys_overlaps(
        [Oracle().keys(one.image) for one in scenes], masks, tau=0.15, center=False
    )
    np.testing.assert_array_equal(again.first, found.first)
    np.testing.assert_array_equal(again.best, found.best)


# Neighbours


def test_neighbours_of_the_own_image_do_not_count():
    vectors = np.array([[1, 0], [1, 0.01], [1, 0.02], [0, 1]])
    # The nearest of 0 is 1, of its image; elsewhere it is 2, of another class.
    shares = neighbour_shares(vectors, np.array([7, 7, 8, 7]), np.array([1, 1, 2, 3]), k=1)
    np.testing.assert_array_equal(shares, [0, 0, np.nan, 0])
    shares = neighbour_shares(vectors, np.array([7, 7, 7, 8]), np.array([1, 1, 2, 3]), k=1)
    np.testing.assert_array_equal(shares, [1, 1, 1, np.nan])


def test_shares_are_of_those_neighbours_that_there_are():
    vectors = np.random.default_rng(0).standard_normal((4, 3))
    shares = neighbour_shares(vectors, np.array([1, 1, 2, 2]), np.array([1, 2, 3, 3]), k=5)
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, np.nan, np.nan])


def test_neighbours_are_the_nearest_by_cosine_whatever_the_length():
    vectors = np.array([[1.0, 0], [100, 1], [0.5, 0.5], [0, 0]])
    shares = neighbour_shares(vectors, np.array([1, 1, 2, 2]), np.arange(4), k=1)
    # The last has no direction: all are equally far, and the first of them counts.
    np.testing.assert_array_equal(shares, [1, 1, 0, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 6))
def test_neighbours_equal_brute_force_in_any_order(seed, count, k):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, 3))
    class_ids, image_ids = random.integers(0, 3, count), random.integers(0, 5, count)
    shares = neighbour_shares(vectors, class_ids, image_ids, k)
    for one in range(count):
        others = [n for n in range(count) if image_ids[n] != image_ids[one]]
        cosine = {n: vectors[one] @ vectors[n] / np.linalg.norm(vectors[n]) for n in others}
        nearest = sorted(others, key=lambda n, cosine=cosine: -cosine[n])[:k]
        if any(class_ids[n] == class_ids[one] for n in others):
            expected = np.mean([class_ids[n] == class_ids[one] for n in nearest])
            assert shares[one] == pytest.approx(expected)
        else:
            assert np.isnan(shares[one])
    order = random.permutation(count)
    again = neighbour_shares(vectors[order], class_ids[order], image_ids[order], k)
    np.testing.assert_array_equal(again, shares[order])


def test_purity_is_of_those_instances_that_can_have_a_neighbour():
    ids = np.array([1, 2, 3])
    assert ClassNeighbours(np.array([0.5, np.nan, 1.0]), ids).purity == 75
    assert np.isnan(ClassNeighbours(np.full(3, np.nan), ids).purity)


def test_crowds_and_small_instances_have_no_neighbours():
    small = np.zeros((SIZE, SIZE), bool)
    small[:31, :33] = True  # 1023 pixels, however large the file says it is
    extra = row(1, 1, small, area=5000.0)
    images = [scene(1), scene(2), scene(3, crowd=True)]
    images[0].rows.append(extra)
    found = class_neighbours(Oracle(), images)
    assert found.image_ids.tolist() == [1, 1, 2, 2]
    assert class_neighbours(Oracle(), images[2:]).shares.shape == (0,)


# Instances


def test_features_that_know_the_truth_have_full_scores():
    lines = []
    images = [scene(image_id) for image_id in range(56)]
    found = instance_quality(Oracle(), images, lines.append)
    assert (found.ar3, found.ar10, found.purity) == (100, 100, 100)
    assert len(found.neighbours.shares) == 2 * len(images)
    assert lines == [
        "backbone quality: cut 50 of 56 images",
        "backbone quality: embedded 50 of 56 images",
    ]
    scores = mask_scores(Oracle(), images)
    assert (scores.recall, scores.ap50) == ({3: 100, 10: 100}, found.ap50)


def test_features_that_find_nothing_score_nothing():
    found = instance_quality(Blind(), [scene(image_id) for image_id in range(4)])
    assert (found.ar3, found.ar10, found.ap50) == (0, 0, 0)
    # All vectors are equal, so the first five elsewhere count: three of class 1, two of class 2.
    assert found.purity == pytest.approx(50)


def test_recall_counts_as_many_masks_as_it_says():
    one = scene(1)
    half = AnnotatedImage(1, one.image, one.rows[:1])
    assert instance_quality(Oracle(), [half]).ar3 == 100
    # Which of the two is cut first is MaskCut's; both are among the first three.
    assert instance_quality(Oracle(), [one]).ar3 == 100
    with_crowd = AnnotatedImage(1, one.image, [*one.rows[:1], {**one.rows[1], "iscrowd": 1}])
    assert instance_quality(Oracle(), [with_crowd]).ar10 == 100


def test_one_image_has_masks_but_no_purity():
    found = instance_quality(Oracle(), [scene(1)])
    assert found.ar10 == 100
    assert np.isnan(found.purity)


def test_without_instances_nothing_is_measured():
    assert instance_quality(Oracle(), []) is None
    assert instance_quality(Oracle(), [AnnotatedImage(1, scene(1).image, [])]) is None
    assert instance_quality(Oracle(), [scene(1, crowd=True)]) is None


def test_an_image_annotated_as_empty_makes_masks_wrong_and_is_no_obstacle():
    full, empty = scene(1), AnnotatedImage(2, scene(2).image, [])
    alone, both = (instance_quality(Oracle(), images) for images in ([full], [empty, full]))
    assert both.ar10 == alone.ar10 == 100
    assert both.ap50 < alone.ap50


def test_a_backbone_is_measured_at_the_size_that_is_asked_for():
    backbone = load_backbone("embedded")
    features = BackboneFeatures(backbone, image_size=64)
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    mask = np.zeros((50, 70), bool)
    mask[5:45, 5:45] = True
    pixels = torch.from_numpy(normalised_pixels(resize_square(image, 64)))
    np.testing.assert_array_equal(features.keys(image), backbone.extract(pixels[None]).keys[0])
    assert features.embed(image, mask[None]).shape == (1, backbone.dim)
    assert BackboneFeatures(backbone).image_size == backbone.image_size
    found = instance_quality(features, [AnnotatedImage(1, image, [row(1, 1, mask)])])
    assert 0 <= found.ar3 <= found.ar10 <= 100


def test_annotated_images_are_read_in_the_tables_order(tmp_path: Path):
    for name, colour in (("a.png", 10), ("b.png", 20), ("c.png", 30)):
        buffer = io.BytesIO()
        Image.fromarray(np.full((6, 8, 3), colour, np.uint8)).save(buffer, "PNG")
        (tmp_path / name).write_bytes(buffer.getvalue())
    triangle = {"id": 1, "image_id": 2, "category_id": 1, "segmentation": [[0, 0, 4, 0, 0, 4]]}
    (tmp_path / "more").mkdir()
    (tmp_path / "c.png").rename(tmp_path / "more" / "c.png")
    listed = coco(tmp_path / "some.json", ["a.png", "b.png"], annotations=[triangle])
    sources = [
        ImageSource(str(tmp_path / "more")),
        ImageSource(str(tmp_path), instances_json=listed),
    ]
    table = scan(*sources).images
    found = list(annotated_images(table, load_ground_truth(sources, table)))
    assert [int(one.image[0, 0, 0]) for one in found] == [10, 20]
    assert [len(one.rows) for one in found] == [0, 1]
    assert found[1].rows[0]["segmentation"]["size"] == [6, 8]
