"""Statistics of predictions on counts worked by hand."""

import numpy as np
import pytest

from segmodels.evaluation.metrics.cluster_statistics import cluster_statistics, entropy_bits


def test_summary_by_hand():
    statistics = cluster_statistics(
        clusters=[1, 1, 3, 3],
        scores=[0.2, 0.4, 0.6, 0.8],
        predictions_per_image=[3, 0, 1],
        semantic_pixels=np.array([50, 25, 0, 25]),
        num_things=4,
    )
    assert statistics.thing_counts.tolist() == [2, 0, 2, 0]
    summary = statistics.as_dict()
    expected = {
        "images": 3,
        "predictions": 4,
        "predictions_per_image": 1.3333,
        "images_without_predictions": 1,
        "thing_clusters": 4,
        "thing_clusters_used": 2,
        "thing_entropy_bits": 1.0,
        "thing_clusters_effective": 2.0,
        "largest_thing_cluster_percent": 50.0,
        "stuff_clusters": 3,
        "stuff_clusters_used": 2,
        "stuff_entropy_bits": 1.0,
        "thing_pixels_percent": 50.0,
        "mean_score": 0.5,
        "score_median": 0.5,
    }
    assert {name: summary[name] for name in expected} == expected


def test_nothing_predicted():
    summary = cluster_statistics([], [], [0, 0], np.zeros(3, int), 2).as_dict()
    assert summary["predictions"] == summary["thing_entropy_bits"] == 0
    assert summary["images_without_predictions"] == 2
    assert "mean_score" not in summary


def test_entropy_of_equal_shares_is_the_logarithm():
    assert entropy_bits(np.full(8, 5)) == pytest.approx(3)
    assert entropy_bits(np.array([7])) == 0


def test_refuses_clusters_out_of_range():
    with pytest.raises(ValueError, match=r"\[1, 2\], got 3..3"):
        cluster_statistics([3], [1.0], [1], np.zeros(1, int), 2)
