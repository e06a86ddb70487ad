import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.errors import BackendUnavailableError, TooFewPointsError
from kernels.kmeans import kmeans
from kernels.kmeans.init import initial_centroids
from kernels.kmeans.nearest import search_of
from kernels.kmeans.points import summarize

THREADS = """
import hashlib, numpy as np
from kernels.kmeans import kmeans
digest = hashlib.sha1()
for shape, k in (((9000, 70), 40), ((2500, 1030), 9), ((4097, 256), 300), ((8193, 3), 20)):
    points = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for options in ({}, {"init": "k-means++"}, {"mini_batch": 1000}):
        result = kmeans(points, k, seed=0, iterations=6, **options)
        digest.update(result.labels.tobytes() + result.centroids.tobytes())
print(digest.hexdigest())
"""
MODES = [{}, {"init": "k-means++"}, {"restarts": 3}, {"mini_batch": 3000}]


def blobs(centers, per_blob, spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(centers)), per_blob)
    points = np.asarray(centers, float)[truth] + rng.normal(scale=spread, size=(len(truth), 2))
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


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 20_000), max_size=6),
    mode=st.sampled_from(MODES),
)
def test_batches_do_not_matter(seed, cuts, mode):
    points = np.random.default_rng(9).normal(size=(20_000, 5)).astype(np.float32)
    whole = kmeans(points, 12, seed=seed, iterations=3, **mode)
    batched = kmeans(np.split(points, sorted(cuts)), 12, seed=seed, iterations=3, **mode)
    assert whole.labels.tobytes() == batched.labels.tobytes()
    assert whole.centroids.tobytes() == batched.centroids.tobytes()
    assert whole.inertia == batched.inertia


def test_threads_do_not_matter():
    def run(threads):
        environment = os.environ | dict.fromkeys(
            ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], str(threads)
        )
        command = [sys.executable, "-c", THREADS]
        return subprocess.run(command, env=environment, check=True, capture_output=True).stdout

    assert run(1) == run(3)


@pytest.mark.parametrize("seed", range(5))
def test_searching_only_what_moved_is_lloyds_to_the_end(seed):
    points = np.random.default_rng(seed).normal(size=(1500, 8)).astype(np.float32)
    result = kmeans(points, 40, seed=seed)
    assert 5 < result.iterations < 100
    assert result.reseeded == 0
    first = np.sort(np.random.default_rng(seed).permutation(1500)[:40])
    labels, centroids = lloyd(points, first, result.iterations)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_allclose(result.centroids, centroids, atol=1e-5)


def test_far_from_the_origin():
    points, _ = blobs([[0, 0], [10, 0], [0, 10]], 50)
    points = points.round(2)
    near, far = kmeans(points, 3, seed=4), kmeans(points.astype(float) + 8192, 3, seed=4)
    np.testing.assert_array_equal(near.labels, far.labels)


def test_empty_clusters_are_counted_and_filled():
    # An initial centroid owns its own point, so clusters empty only later, in a few starts.
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


@pytest.mark.parametrize("k", [1, 2, 30])
def test_the_two_nearest_by_brute_force(k):
    rng = np.random.default_rng(8)
    rows, centroids = (rng.normal(size=(n, 16)).astype(np.float32) for n in (300, k))
    squared = ((rows[:, None].astype(float) - centroids) ** 2).sum(axis=2)

    nearest, least, second = search_of("cpu")(rows, centroids)

    np.testing.assert_array_equal(nearest, squared.argmin(axis=1))
    np.testing.assert_allclose(least, squared.min(axis=1), rtol=1e-4)
    expected = np.sort(squared, axis=1)[:, 1] if k > 1 else np.full(300, np.inf)
    np.testing.assert_allclose(second, expected, rtol=1e-4)


def test_the_gpu_agrees_with_the_cpu_or_is_refused():
    points = np.random.default_rng(8).normal(size=(3000, 16))
    try:
        on_gpu = kmeans(points, 20, seed=0, backend="gpu")
    except BackendUnavailableError as error:
        assert "gpu" in str(error)  # noqa: PT017
    else:
        on_cpu = kmeans(points, 20, seed=0, backend="cpu")
        assert (on_gpu.labels == on_cpu.labels).mean() > 0.99


def test_plus_plus_finds_what_random_starts_miss():
    centers = np.random.default_rng(1).normal(scale=20, size=(25, 2))
    points, truth = blobs(centers, 40)
    spread = kmeans(points, 25, seed=0, init="k-means++")
    random = kmeans(points, 25, seed=0)
    assert same_partition(spread.labels, truth)
    assert random.inertia > 2 * spread.inertia


def test_plus_plus_starts_from_different_points():
    # 3 distinct points, one 500 times as often: a draw of points would rarely hit the others.
    points = np.repeat([[0.0, 0], [1, 0], [0, 1]], [500, 1, 1], axis=0)
    first = initial_centroids(points, summarize(points), 3, init="k-means++", seed=0)
    assert len(np.unique(first, axis=0)) == 3
    with pytest.raises(
        TooFewPointsError, match="4 clusters need at least 4 distinct points, got 3"
    ):
        kmeans(points, 4, seed=0, init="k-means++")


def test_plus_plus_on_points_that_rounding_makes_equal():
    points = np.float32(1000) * np.eye(4, dtype=np.float32)
    points = np.concatenate([points, np.nextafter(points, np.float32(2000))])
    result = kmeans(points, 8, seed=0, init="k-means++", iterations=1)
    assert sorted(result.labels.tolist()) == list(range(8))


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    k=st.integers(1, 13),
    mode=st.sampled_from([{"init": "k-means++"}, {"mini_batch": 7}, {"mini_batch": 1}]),
)
def test_no_mode_leaves_a_cluster_empty(values, k, mode):
    points = np.array(values, float)[:, None]
    if len(set(values)) < k:
        with pytest.raises(TooFewPointsError):
            kmeans(points, k, seed=0, **mode)
        return
    result = kmeans(points, k, seed=0, iterations=3, **mode)
    assert np.bincount(result.labels, minlength=k).min() > 0
    for cluster in range(k):
        np.testing.assert_allclose(
            result.centroids[cluster], points[result.labels == cluster].mean(axis=0), atol=1e-5
        )


def test_restarts_keep_the_tightest():
    points, _ = blobs(np.random.default_rng(3).normal(scale=5, size=(12, 2)), 30)
    one = kmeans(points, 12, seed=5)
    several = kmeans(points, 12, seed=5, restarts=6)
    assert several.inertia < one.inertia
    again = kmeans(points, 12, seed=5, restarts=6)
    assert several.labels.tobytes() == again.labels.tobytes()


def test_mini_batches_come_close_to_the_full_algorithm():
    rng = np.random.default_rng(4)
    points, _ = blobs(rng.normal(scale=3, size=(30, 2)), 1000, spread=0.7)
    full = kmeans(points, 20, seed=1, init="k-means++")
    small = kmeans(points, 20, seed=1, init="k-means++", mini_batch=1000)
    assert small.inertia < 1.1 * full.inertia
    assert small.iterations < full.iterations


def test_mini_batches_by_hand():
    # Starts at 0 and 10 (rows 0 and 3). First batch 0, 2: the left centroid moves to 1. Second
    # batch 4, 10: the left one is the mean of 0, 2, 4. So 10 stays alone, as in the plain closing
    # iteration.
    points = np.array([[0.0], [2], [4], [10]])
    seed = next(s for s in range(50) if set(np.random.default_rng(s).permutation(4)[:2]) == {0, 3})
    result = kmeans(points, 2, seed=seed, mini_batch=2, iterations=1)
    np.testing.assert_array_equal(result.labels, [0, 0, 0, 1])
    np.testing.assert_allclose(result.centroids, [[2], [10]])


def test_a_stream_is_read_block_by_block():
    class Stream:
        """Counts the batches that are alive at the same time."""

        def __init__(self):
            self.alive = self.most = 0

        def __iter__(self):
            for number in range(10):
                batch = np.random.default_rng(number).random((1000, 300), np.float32)
                self.alive += 1
                weakref.finalize(batch, self._gone)
                self.most = max(self.most, self.alive)
                yield batch
                del batch

        def _gone(self):
            self.alive -= 1

    stream = Stream()
    for mode in MODES:
        kmeans(stream, 5, seed=0, iterations=2, **mode)
    # A block of 300 columns holds 3,495 rows.
    assert stream.most <= 6


def test_wrong_options_are_refused():
    points = np.eye(3)
    with pytest.raises(ValueError, match="got 'best'"):
        kmeans(points, 2, seed=0, init="best")
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        kmeans(points, 2, seed=0, restarts=0)
    with pytest.raises(ValueError, match="mini_batch must be at least 0"):
        kmeans(points, 2, seed=0, mini_batch=-1)
    with pytest.raises(ValueError, match="backend must be 'auto', 'cpu' or 'gpu'"):
        kmeans(points, 2, seed=0, backend="cuda")
    with pytest.raises(ValueError, match="a value above 1e"):
        kmeans(np.array([[0.0], [1e18]]), 2, seed=0)
