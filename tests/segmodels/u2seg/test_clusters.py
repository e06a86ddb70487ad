import numpy as np
import pytest
import zarr

from kernels.errors import TooFewPointsError
from segmodels.formats.arrow import read_table
from segmodels.u2seg.clusters import (
    CLUSTER_SCHEMA,
    ClusterSettings,
    cluster_instances,
    cluster_sizes,
    write_clusters,
)


def two_groups():
    """Six embeddings in two far groups, ids not in order; the even ids belong together."""
    ids = np.array([7, 2, 5, 4, 1, 0])
    embeddings = np.where(ids[:, None] % 2 == 0, 10.0, 0.0) + ids[:, None] * np.array([[0.1, 0.0]])
    return embeddings.astype(np.float32), ids


def test_groups_become_clusters():
    embeddings, ids = two_groups()
    clusters, centroids = cluster_instances(embeddings, ids, 2, 0, ClusterSettings())
    assert clusters.schema == CLUSTER_SCHEMA
    assert clusters["instance_id"].to_pylist() == [0, 1, 2, 4, 5, 7]
    labels = dict(
        zip(*(clusters[name].to_pylist() for name in ("instance_id", "cluster_id")), strict=True)
    )
    assert len({labels[i] for i in (0, 2, 4)}) == len({labels[i] for i in (1, 5, 7)}) == 1
    assert labels[0] != labels[1]
    assert centroids.shape == (2, 2)
    # Ids 0, 2, 4 lie at x = 10, 10.2, 10.4, ids 1, 5, 7 at 0.1, 0.5, 0.7.
    np.testing.assert_allclose(sorted(centroids[:, 0]), [1.3 / 3, 10.2], atol=1e-5)
    np.testing.assert_allclose(
        clusters["distance"].to_numpy(),
        [0.2, 1 / 3, 0, 0.2, 0.2 / 3, 0.8 / 3],
        atol=1e-5,
    )


def test_order_of_instances_does_not_matter():
    rng = np.random.default_rng(0)
    embeddings, ids = rng.normal(size=(200, 5)).astype(np.float32), rng.permutation(1000)[:200]
    order = rng.permutation(200)
    first, first_centroids = cluster_instances(embeddings, ids, 12, 3, ClusterSettings())
    again, again_centroids = cluster_instances(
        embeddings[order], ids[order], 12, 3, ClusterSettings()
    )
    assert first.equals(again)
    np.testing.assert_array_equal(first_centroids, again_centroids)


def test_normalised_embeddings_are_compared_by_direction():
    angles = np.radians([0, 2, 4, 80, 82, 84])
    lengths = np.array([1, 100, 3, 50, 1, 9])
    embeddings = lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    clusters, centroids = cluster_instances(
        embeddings, np.arange(6), 2, 0, ClusterSettings(normalise=True)
    )
    labels = clusters["cluster_id"].to_numpy()
    assert len(set(labels[:3])) == len(set(labels[3:])) == 1
    assert labels[0] != labels[3]
    assert (np.linalg.norm(centroids, axis=1) <= 1).all()


def test_too_few_instances_names_both_numbers():
    embeddings, ids = two_groups()
    with pytest.raises(TooFewPointsError, match=r"800 clusters .* there are 6"):
        cluster_instances(embeddings, ids, 800, 0, ClusterSettings())
    with pytest.raises(TooFewPointsError, match="there are 0"):
        cluster_instances(np.zeros((0, 0)), np.zeros(0, int), 3, 0, ClusterSettings())
    with pytest.raises(TooFewPointsError, match=r"3 clusters .* got 1 \(among 6"):
        cluster_instances(np.ones((6, 2)), ids, 3, 0, ClusterSettings())


def test_wrong_ids_are_refused():
    embeddings, ids = two_groups()
    with pytest.raises(ValueError, match="6 embeddings do not fit 5 ids"):
        cluster_instances(embeddings, ids[:5], 2, 0, ClusterSettings())
    with pytest.raises(ValueError, match="must be unique"):
        cluster_instances(embeddings, np.array([1, 1, 2, 3, 4, 5]), 2, 0, ClusterSettings())


def test_sizes_count_empty_clusters_too():
    embeddings, ids = two_groups()
    clusters, _ = cluster_instances(embeddings, ids, 2, 0, ClusterSettings())
    np.testing.assert_array_equal(cluster_sizes(clusters, 2), [3, 3])
    np.testing.assert_array_equal(cluster_sizes(clusters, 4), [3, 3, 0, 0])


def test_what_is_written_is_what_was_found(tmp_path):
    embeddings, ids = two_groups()
    clusters, centroids = cluster_instances(embeddings, ids, 2, 0, ClusterSettings())
    assert write_clusters(tmp_path, clusters, centroids) == {
        "instances": 6,
        "clusters": 2,
        "empty_clusters": 0,
        "smallest_cluster": 3,
        "largest_cluster": 3,
    }
    assert read_table(tmp_path / "clusters.arrow").equals(clusters)
    stored = zarr.open_group(tmp_path / "centroids.zarr", mode="r")["centroids"]
    np.testing.assert_array_equal(np.asarray(stored), centroids)
