import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.errors import BackendUnavailableError, TooFewPointsError
from kernels.kmeans import kmeans


def blobs(centres, per_blob, spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(centres)), per_blob)
    points = np.asarray(centres, float)[truth] + rng.normal(scale=spread, size=(len(truth), 2))
    order = rng.permutation(len(truth))
    return points[order].astype(np.float32), truth[order]


def lloyd(points, first, iterations):
    """The textbook loop in float64, without any care for emptied clusters."""
    centroids = points[first].astype(float)
    for _ in range(iterations):
        distances = ((points[:, None].astype(float) - centroids[None]) ** 2).sum(axis=2)
        labels = distances.argmin(axis=1)
        centroids = np.stack([points[labels == j].mean(axis=0) for j in range(len(first))])
    return labels, centroids


def same_partition(first, second):
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    return len(pairs) == len(set(first.tolist())) == len(set(second.tolist()))


def test_separated_blobs_are_found():
    points, truth = blobs([[0, 0], [10, 0], [0, 10]], 50)
    # One start may well settle in a poor optimum; a good one recovers the blobs exactly.
    best = min((kmeans(points, 3, seed=seed) for seed in range(10)), key=lambda r: r.inertia)
    assert same_partition(best.labels, truth)
    assert best.iterations < 100


@pytest.mark.parametrize("iterations", [1, 2, 5, 30])
def test_each_iteration_is_lloyds(iterations):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(400, 6)).astype(np.float32)
    result = kmeans(points, 7, seed=3, iterations=iterations)
    # The first centroids are those of the shuffled points, taken in ascending row order.
    first = np.sort(np.random.default_rng(3).permutation(400)[:7])
    labels, centroids = lloyd(points, first, iterations)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_allclose(result.centroids, centroids, atol=1e-5)


def test_result_is_consistent():
    points = np.random.default_rng(2).normal(size=(500, 4))
    result = kmeans(points, 9, seed=0, iterations=3)
    assert result.labels.dtype == np.int32
    assert result.centroids.dtype == result.distances.dtype == np.float32
    for cluster in range(9):
        inside = points[result.labels == cluster]
        np.testing.assert_allclose(result.centroids[cluster], inside.mean(axis=0), atol=1e-5)
    own = np.linalg.norm(points - result.centroids[result.labels], axis=1)
    np.testing.assert_allclose(result.distances, own, atol=1e-5)
    assert result.inertia == pytest.approx((own**2).sum(), rel=1e-5)


def test_stopping_early_changes_nothing():
    points, _ = blobs([[0, 0], [3, 1], [1, 4], [5, 5]], 40, spread=0.8)
    full = kmeans(points, 4, seed=1, iterations=1000)
    again = kmeans(points, 4, seed=1, iterations=full.iterations)
    assert full.iterations < 1000
    assert full.labels.tobytes() == again.labels.tobytes()
    assert full.centroids.tobytes() == again.centroids.tobytes()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 20_000), max_size=6))
def test_batches_do_not_matter(seed, cuts):
    points = np.random.default_rng(9).normal(size=(20_000, 5)).astype(np.float32)
    whole = kmeans(points, 12, seed=seed, iterations=3)
    batched = kmeans(np.split(points, sorted(cuts)), 12, seed=seed, iterations=3)
    assert whole.labels.tobytes() == batched.labels.tobytes()
    assert whole.centroids.tobytes() == batched.centroids.tobytes()
    assert whole.inertia == batched.inertia


def test_far_from_the_origin():
    points, _ = blobs([[0, 0], [10, 0], [0, 10]], 50)
    points = points.round(2)
    near, far = kmeans(points, 3, seed=4), kmeans(points.astype(float) + 8192, 3, seed=4)
    np.testing.assert_array_equal(near.labels, far.labels)


def test_emptied_clusters_are_counted_and_filled():
    # A first centroid owns its own point, so clusters starve only later and only in a few starts.
    rng = np.random.default_rng(0)
    reseeded = 0
    for seed in range(300):
        points = rng.integers(0, 30, size=(25, 2)).astype(float)
        points[:5] *= 20
        result = kmeans(points, 10, seed=seed)
        assert np.bincount(result.labels, minlength=10).min() > 0
        reseeded += result.reseeded
    assert reseeded > 0


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    k=st.integers(1, 13),
    seed=st.integers(0, 100),
    iterations=st.integers(1, 5),
)
def test_no_cluster_is_ever_empty(values, k, seed, iterations):
    points = np.array(values, float)[:, None]
    distinct = len(set(values))
    if distinct < k:
        with pytest.raises(TooFewPointsError, match=f"{k} distinct points, got {distinct}"):
            kmeans(points, k, seed=seed, iterations=iterations)
        return
    result = kmeans(points, k, seed=seed, iterations=iterations)
    assert np.bincount(result.labels, minlength=k).min() > 0
    assert np.isfinite(result.centroids).all()


def test_as_many_clusters_as_points():
    points = np.random.default_rng(6).normal(size=(17, 3))
    result = kmeans(points, 17, seed=0)
    assert sorted(result.labels.tolist()) == list(range(17))
    assert result.inertia == pytest.approx(0, abs=1e-10)


def test_seeds_choose_and_repeat():
    points = np.random.default_rng(7).normal(size=(300, 2))
    first, again, other = (kmeans(points, 8, seed=seed, iterations=1) for seed in (1, 1, 2))
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.labels.tobytes() != other.labels.tobytes()


def test_too_few_points_names_both_numbers():
    with pytest.raises(TooFewPointsError, match=r"800 clusters .* got 3 \(among 5 points\)"):
        kmeans(np.array([[0.0], [1], [2], [2], [-0.0]]), 800, seed=0)
    with pytest.raises(TooFewPointsError, match="got 0"):
        kmeans(np.zeros((0, 4)), 2, seed=0)
    with pytest.raises(TooFewPointsError, match="got 0"):
        kmeans([], 2, seed=0)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.array([[0.0], [np.nan]]), "row 1 holds NaN"),
        ([np.zeros((3, 1)), np.array([[0.0], [np.inf]])], "row 4 holds NaN"),
        (np.zeros(4), "points must be .n, d."),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "must all have 3 columns, got 4"),
    ],
)
def test_wrong_points_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        kmeans(points, 1, seed=0)


def test_wrong_arguments_are_refused():
    points = np.eye(3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        kmeans(points, 0, seed=0)
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        kmeans(points, 1, seed=0, iterations=0)
    with pytest.raises(TypeError, match="re-iterable"):
        kmeans((points for _ in range(1)), 1, seed=0)


def test_the_gpu_agrees_with_the_cpu_or_says_why_not():
    points = np.random.default_rng(8).normal(size=(3000, 16))
    try:
        on_gpu = kmeans(points, 20, seed=0, backend="gpu")
    except BackendUnavailableError as error:
        assert "gpu" in str(error)  # noqa: PT017
    else:
        on_cpu = kmeans(points, 20, seed=0, backend="cpu")
        assert (on_gpu.labels == on_cpu.labels).mean() > 0.99
