"""What the table of backbones adds to the measures: intervals, and the descriptors' vectors."""

import numpy as np
import pytest

from benchmarks.backbone_quality import difference, paired_interval, run, saliency_overlaps
from benchmarks.descriptors import DescriptorFeatures
from benchmarks.options import Options


def test_an_interval_of_equal_differences_is_that_difference():
    assert paired_interval(np.full(6, 0.25), np.arange(6)) == (0.25, 0.25)


def test_photographs_are_resampled_with_all_their_instances():
    more = np.random.default_rng(0).standard_normal(20)
    alone = paired_interval(more, np.arange(20))
    # The same twenty, each four times in its photograph: no new photograph was seen.
    together = paired_interval(np.repeat(more, 4), np.repeat(np.arange(20), 4))
    assert together == pytest.approx(alone)
    assert alone[0] < more.mean() < alone[1]


def test_instances_without_a_neighbour_are_left_out_of_a_difference():
    ids = np.array([7, 7, 9])
    assert difference(np.array([1.0, np.nan, 1.0]), ids, 1) == "+1.0 (+1.0 to +1.0)"
    assert difference(np.full(3, np.nan), ids, 1) == "-"


def test_the_descriptors_vector_of_an_instance_is_the_mean_inside_its_mask():
    image = np.random.default_rng(0).integers(0, 255, (480, 480, 3), np.uint8)
    masks = np.zeros((2, 480, 480), bool)
    masks[0, 80:160, 40:56] = True
    masks[1] = True
    features = DescriptorFeatures()
    patches, vectors = features.keys(image), features.embed(image, masks)
    assert vectors.shape == (2, 40)
    np.testing.assert_allclose(vectors[0], patches[10:20, 5:7].mean(axis=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(vectors[1], 0, atol=1e-5)  # they are standardised


def test_saliency_by_itself_finds_a_disc():
    # Wider than high, as photographs are: both are made square alike.
    y, x = np.mgrid[:150, :200]
    disc = (y - 70) ** 2 + (x - 110) ** 2 < 40**2
    photo = np.where(disc[..., None], np.uint8([200, 40, 40]), np.uint8([40, 90, 160]))
    scores = saliency_overlaps([photo, photo], [disc, ~disc])
    assert scores.first[0] > 0.9
    assert scores.first[1] < 0.1
    np.testing.assert_array_equal(scores.best, scores.first)


def test_without_photographs_the_table_says_so():
    (table,) = run(Options())
    assert "Not measured" in table.title
