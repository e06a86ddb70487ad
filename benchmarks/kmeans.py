"""k-means: against scikit-learn and faiss, growth, starts, mini-batches, memory of a stream."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import ceilings
from benchmarks.options import Options
from benchmarks.tables import Table
from benchmarks.timing import spelled, time_each
from kernels.kmeans import KMeansResult, kmeans
from kernels.kmeans.init import initial_centroids
from kernels.kmeans.lloyd import lloyd
from kernels.kmeans.points import PointSummary, summarize
from kernels.kmeans.threads import block_threads

Points = NDArray[np.float32]
Result = TypeVar("Result")
_ROUNDS = 20


def run(options: Options) -> list[Table]:
    """Measure on seeded mixtures of overlapping Gaussians."""
    embeddings = mixture(4000 if options.quick else 20_000, 768)
    codes = mixture(100_000 if options.quick else 2_000_000, 64)
    counts = (100, 300) if options.quick else (100, 300, 800, 1500, 3000)
    return [
        one_assignment(embeddings, counts),
        against_peers(embeddings, codes, 300),
        growth_with_clusters(embeddings, counts),
        growth_with_points(embeddings, 300),
        starts(embeddings[:4000], 300),
        mini_batches(codes, 27),
        stream_memory((20, 40) if options.quick else (50, 100, 200, 400)),
    ]


def mixture(count: int, width: int, seed: int = 0) -> Points:
    """Points around 400 centers, as far from their own as these are from each other."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((400, width), np.float32)
    points = random.standard_normal((count, width), np.float32)
    points += centers[random.integers(400, size=count)]
    return points


def one_assignment(points: Points, counts: tuple[int, ...]) -> Table:
    """The first iteration, which must search everything, against its arithmetic."""
    seen = summarize(points)
    rows = []
    for k in counts:
        first = initial_centroids(points, seen, k, init="random", seed=0)
        around_zero = points - seen.mean
        timed = time_each(
            {
                "ours": partial(one_iteration, points, seen, first),
                "faiss": partial(faiss_assignment, around_zero, first),
            },
            repeats=5,
        )
        ours, theirs = timed["ours"].median, timed["faiss"].median
        floor = 2 * len(points) * k * points.shape[1] / ceilings().flops_f32
        rows.append(
            [
                str(k),
                spelled(ours),
                f"{floor / ours:.0%}",
                f"{spelled(theirs)} ({theirs / ours:.1f} x)",
            ]
        )
    return Table(
        f"One full iteration (assignment, sums, centroids) on {shape_of(points)}, and its share of "
        "the 2 n k d operations of the assignment at the measured ceiling. faiss: its search for "
        "the nearest centroid alone.",
        ["clusters", "ours", "floor / ours", "faiss.knn"],
        rows,
    )


def one_iteration(points: Points, seen: PointSummary, centroids: Points) -> object:
    """Our first iteration on the CPU."""
    with block_threads("cpu") as threads:
        return lloyd(points, seen, centroids, 1, threads)


def faiss_assignment(points: Points, centroids: Points) -> object:
    """Labels by faiss's exact search on the CPU."""
    import faiss

    return faiss.knn(points, centroids, 1)


def against_peers(embeddings: Points, codes: Points, k: int) -> Table:
    """Whole runs from the same first centroids, with as many iterations as ours needs."""
    rows = []
    for points, clusters in ((embeddings, k), (codes[: len(codes) // 8], 27)):
        ours = kmeans(points, clusters, seed=0, iterations=_ROUNDS)
        first = initial_centroids(points, summarize(points), clusters, init="random", seed=0)
        first += summarize(points).mean
        alternatives: dict[str, Callable[[], float]] = {
            "ours": partial(our_inertia, points, clusters),
            "faiss.Kmeans": partial(faiss_kmeans, points, first, ours.iterations),
        }
        if has_sklearn():
            alternatives["scikit-learn"] = partial(sklearn_kmeans, points, first, ours.iterations)
        timed = timed_with(alternatives, 2)
        rows += [
            [
                f"{shape_of(points)}, k {clusters}",
                name,
                str(ours.iterations),
                spelled(seconds),
                f"{seconds / timed['ours'][0]:.1f} x",
                f"{inertia / ours.inertia:.4f}",
            ]
            for name, (seconds, inertia) in timed.items()
        ]
    return Table(
        "Whole runs from the same random points as first centroids (Lloyd's algorithm everywhere, "
        "one start). Inertia is relative to ours.",
        ["points", "", "iterations", "time", "ratio", "inertia"],
        rows,
    )


def timed_with(
    ways: Mapping[str, Callable[[], Result]], repeats: int
) -> dict[str, tuple[float, Result]]:
    """Median seconds of each way, timed in turns, and what its last call returned."""
    found: dict[str, Result] = {}

    def keep(name: str) -> None:
        found[name] = ways[name]()

    calls = {name: partial(keep, name) for name in ways}
    timed = time_each(calls, repeats=repeats, warm_up=False)
    return {name: (timed[name].median, found[name]) for name in ways}


def has_sklearn() -> bool:
    """Whether scikit-learn is installed; it is no dependency."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        return False
    return True


def our_inertia(points: Points, k: int) -> float:
    """Inertia of ours."""
    return kmeans(points, k, seed=0, iterations=_ROUNDS).inertia


def sklearn_kmeans(points: Points, first: Points, iterations: int) -> float:
    """Inertia of scikit-learn's Lloyd."""
    from sklearn.cluster import KMeans

    peer = KMeans(len(first), init=first, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when it ran out of iterations
        return float(peer.fit(points).inertia_)


def faiss_kmeans(points: Points, first: Points, iterations: int) -> float:
    """Inertia after faiss's k-means, taken from an assignment to its last centroids."""
    import faiss

    peer = faiss.Kmeans(
        points.shape[1],
        len(first),
        niter=iterations,
        max_points_per_centroid=len(points),
        min_points_per_centroid=1,
    )
    peer.train(points, init_centroids=first)
    return float(peer.assign(points)[0].sum(dtype=np.float64))


def growth_with_clusters(points: Points, counts: tuple[int, ...]) -> Table:
    """Whole runs with more and more clusters."""
    rows = []
    for k in counts:
        result, seconds = timed_run(points, k)
        work = 2 * len(points) * k * points.shape[1] * result.iterations
        full = work / ceilings().flops_f32
        rows.append([str(k), str(result.iterations), spelled(seconds), f"{full / seconds:.2f} x"])
    return Table(
        f"Runs to the end (at most {_ROUNDS} iterations) on {shape_of(points)}. The last column is "
        "the time that the arithmetic of searching every centroid in every iteration would take at "
        "the measured ceiling, over ours: above 1 the searches that were left out show.",
        ["clusters", "iterations", "time", "full arithmetic / time"],
        rows,
    )


def growth_with_points(points: Points, k: int) -> Table:
    """Whole runs with more and more points."""
    rows = []
    for share in (8, 4, 2, 1):
        some = points[: len(points) // share]
        result, seconds = timed_run(some, k)
        each = seconds / result.iterations / len(some)
        rows.append([f"{len(some):,}", str(result.iterations), spelled(seconds), spelled(each)])
    return Table(
        f"Runs with {k} clusters, d = {points.shape[1]}.",
        ["points", "iterations", "time", "per point and iteration"],
        rows,
    )


def timed_run(points: Points, k: int) -> tuple[KMeansResult, float]:
    """A run and its median time of two."""
    run_once = partial(kmeans, points, k, seed=0, iterations=_ROUNDS)
    seconds, result = timed_with({"ours": run_once}, 2)["ours"]
    return result, seconds


def starts(points: Points, k: int) -> Table:
    """Time and inertia of the ways to start."""
    ways = {
        "random": partial(kmeans, points, k, seed=0),
        "random, 5 restarts": partial(kmeans, points, k, seed=0, restarts=5),
        "k-means++": partial(kmeans, points, k, seed=0, init="k-means++"),
        "k-means++, 5 restarts": partial(kmeans, points, k, seed=0, init="k-means++", restarts=5),
    }
    timed = timed_with(ways, 2)
    base = timed["random"][1].inertia
    return Table(
        f"Starts, on {shape_of(points)} with {k} clusters. Inertia is relative to the first row.",
        ["start", "iterations", "time", "inertia"],
        [
            [name, str(result.iterations), spelled(seconds), f"{result.inertia / base:.4f}"]
            for name, (seconds, result) in timed.items()
        ],
    )


def mini_batches(points: Points, k: int) -> Table:
    """Mini-batches against full iterations, and scikit-learn's."""
    ways: dict[str, Callable[[], tuple[float, int]]] = {
        "all points": lambda: inertia_of(kmeans(points, k, seed=0)),
        "mini-batches of 4,096": lambda: inertia_of(kmeans(points, k, seed=0, mini_batch=4096)),
    }
    if has_sklearn():
        ways["scikit-learn's MiniBatchKMeans"] = partial(sklearn_mini_batch, points, k)
    timed = timed_with(ways, 1)
    base = timed["all points"][1][0]
    rows = [
        [name, str(passes), spelled(seconds), f"{inertia / base:.4f}"]
        for name, (seconds, (inertia, passes)) in timed.items()
    ]
    return Table(
        f"Pixel-level counts: {shape_of(points)}, {k} clusters, random start, batches of 4,096 "
        "consecutive points. Inertia is relative to the first row.",
        ["", "passes", "time", "inertia"],
        rows,
    )


def inertia_of(result: KMeansResult) -> tuple[float, int]:
    """What a run is judged by."""
    return result.inertia, result.iterations


def sklearn_mini_batch(points: Points, k: int) -> tuple[float, int]:
    """scikit-learn's, with its own rules for stopping."""
    from sklearn.cluster import MiniBatchKMeans

    peer = MiniBatchKMeans(
        k, init="random", n_init=1, batch_size=4096, random_state=0, compute_labels=True
    ).fit(points)
    return float(peer.inertia_), int(np.ceil(peer.n_steps_ * 4096 / len(points)))


class Stream:
    """A stream of batches of 10,000 x 64, made anew whenever it is read."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Points]:
        for number in range(self._batches):
            yield np.random.default_rng(number).standard_normal((10_000, 64), np.float32)


def stream_memory(lengths: tuple[int, ...]) -> Table:
    """Peak memory of a process that clusters a stream, beyond that of one that only imports."""
    base = peak_of(1)
    rows = []
    for batches in lengths:
        grown = peak_of(batches) - base
        points = batches * 10_000
        rows.append(
            [
                f"{points:,}",
                f"{points * 64 * 4 / 2**20:.0f} MiB",
                f"{grown / 2**20:.0f} MiB",
                f"{grown / points:.0f}",
            ]
        )
    return Table(
        "Memory of a process that clusters a stream of batches of 10,000 x 64 (27 clusters, two "
        "iterations), over that with one batch: labels, bounds and hashes grow, the "
        "points are never held.",
        ["points", "points' size", "peak over one batch", "bytes a point"],
        rows,
    )


def peak_of(batches: int) -> int:
    """Peak resident bytes of a fresh process (VmHWM)."""
    program = (
        "from benchmarks.kmeans import Stream\n"
        "from kernels.kmeans import kmeans\n"
        f"kmeans(Stream({batches}), 27, seed=0, iterations=2)\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * 1024


def shape_of(points: Points) -> str:
    """Rows x columns."""
    return f"{points.shape[0]:,} x {points.shape[1]}"
