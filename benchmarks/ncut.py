"""Normalized cuts: the solve, three masks of an image, solvers, storages, growth with tokens."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.inputs import cases, photographs, vit_keys, widened
from benchmarks.machine import ceilings
from benchmarks.options import Options
from benchmarks.published_ncut import published_affinity, published_eigenpair
from benchmarks.tables import Table
from benchmarks.timing import spelled, time_each
from kernels.ncut import maskcut
from kernels.ncut.adjacency import cosine_adjacency
from kernels.ncut.affinity import PatchGraphs
from kernels.ncut.eigen import second_smallest

TAU, EPS, MASKS = 0.15, 1e-5, 3
Keys = NDArray[np.float32]


def run(options: Options) -> list[Table]:
    """Measure; the full run solves the dense problem ten times, some four minutes."""
    keys = cases(options)
    if options.quick:
        keys = {name: subsampled(key, 30) for name, key in list(keys.items())[:2]}
    return [
        *solves(keys, options),
        solvers(next(iter(keys.values()))),
        storages(next(iter(keys.values()))),
        growth(options),
    ]


def subsampled(keys: Keys, side: int) -> Keys:
    """Every other patch of a 60 x 60 grid, or every n-th: (side * side, d)."""
    step = 60 // side
    return np.ascontiguousarray(keys.reshape(60, 60, -1)[::step, ::step].reshape(side * side, -1))


def graph_of(keys: Keys) -> PatchGraphs:
    """The unpainted graph of one image."""
    return PatchGraphs(cosine_adjacency(keys[None], TAU, np), EPS)


def solves(keys: dict[str, Keys], options: Options) -> list[Table]:
    """One solve and three masks against the dense solver and against ncut-pytorch."""
    rows, ratios, totals, floors = [], [], [], []
    for name, key in keys.items():
        nothing = np.zeros(len(key), bool)
        graph = graph_of(key)
        ours: dict[str, Callable[[], object]] = {
            "affinity": partial(cosine_adjacency, key[None], TAU, np),
            "solve": partial(second_smallest, graph),
            "three": partial(maskcut, key, _grid(key), tau=TAU, eps=EPS, max_masks=MASKS),
        }
        approximate = nystrom(key)
        if approximate:
            ours["ncut-pytorch"] = approximate
        timed = {what: timing.median for what, timing in time_each(ours, repeats=5).items()}
        dense = time_each(
            {"dense": partial(published_eigenpair, key, nothing)}, repeats=1, warm_up=False
        )["dense"].median
        one = timed["affinity"] / MASKS + timed["solve"]
        flops = len(key) * (len(key) + 1) * key.shape[1]
        ratios.append(dense / one)
        totals.append(timed["three"])
        floors.append(flops / ceilings().flops_f32)
        rows.append(
            [
                name,
                spelled(timed["affinity"]),
                spelled(timed["solve"]),
                spelled(one),
                spelled(dense),
                f"{dense / one:.0f} x",
                spelled(timed["three"]),
                *([spelled(timed["ncut-pytorch"]), agreement(key)] if approximate else ["-", "-"]),
            ]
        )
    size = len(next(iter(keys.values())))
    summary = Table(
        f"Medians over the {len(rows)} cases at {size:,} tokens and 768 dimensions. The floor is "
        "the affinity's T (T + 1) d float32 operations (one triangle) at the measured ceiling.",
        ["a solve, against the dense one", "three masks", "floor", "share of the floor"],
        [
            [
                f"{np.median(ratios):.0f} times faster",
                spelled(float(np.median(totals))),
                spelled(float(np.median(floors))),
                f"{np.median(floors) / np.median(totals):.0%}",
            ]
        ],
    )
    table = Table(
        "One solve = a third of the affinity + the eigenvector. Dense: scipy's `eigh` on the "
        "published formulation, its affinity included. ncut-pytorch: one `ncut_fn` on the same "
        "affinity; its agreement is the cosine (in the metric D) with the exact eigenvector.",
        [
            "case",
            "affinity",
            "eigenvector",
            "one solve",
            "dense solve",
            "ratio",
            "three masks",
            "ncut-pytorch",
            "its agreement",
        ],
        rows,
    )
    return [summary, table]


def nystrom(keys: Keys) -> Callable[[], NDArray[np.float64]] | None:
    """One solve by ncut-pytorch with MaskCut's affinity; None where it is not installed."""
    try:
        import torch
        from ncut_pytorch import ncut_fn
    except ImportError:
        return None

    def affinity(
        first: "torch.Tensor", second: "torch.Tensor | None" = None, sigma: object = None
    ) -> "torch.Tensor":
        second = first if second is None else second
        first, second = (torch.nn.functional.normalize(each, dim=1) for each in (first, second))
        return torch.where(first @ second.T > TAU, 1.0, EPS)

    points = torch.from_numpy(keys)

    def solve() -> NDArray[np.float64]:
        vectors, _ = ncut_fn(points, n_eig=2, sigma=1.0, affinity_fn=affinity, device="cpu")
        return np.asarray(vectors[:, 1].double())

    return solve


def agreement(keys: Keys) -> str:
    """How near ncut-pytorch's vector comes to the exact one, by whichever scaling is better."""
    solve = nystrom(keys)
    assert solve is not None
    graph = graph_of(keys)
    degrees = graph.degrees[0]
    exact = second_smallest(graph).vectors[0] * degrees**0.5
    theirs = solve()
    candidates = [theirs, theirs * degrees**0.5]
    cosines = [
        abs(exact @ each) / np.linalg.norm(exact) / np.linalg.norm(each) for each in candidates
    ]
    return f"{max(cosines):.6f}"


class CountedProducts(PatchGraphs):
    """A patch graph that counts products with its normalised affinity."""

    products = 0

    def apply_normalised(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Count, and multiply."""
        self.products += 1
        product: NDArray[np.float64] = super().apply_normalised(vectors)
        return product


def solvers(keys: Keys) -> Table:
    """Ways to the same eigenvector, all on our products with the affinity."""
    import scipy.linalg
    import scipy.sparse.linalg

    graph = CountedProducts(cosine_adjacency(keys[None], TAU, np), EPS)
    size = len(keys)
    trivial = graph.trivial[0]

    def apply(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = vectors.reshape(size, -1)
        images = [graph.apply_normalised(column[None])[0] for column in columns.T]
        return np.stack(images, axis=1).reshape(vectors.shape)

    operator = scipy.sparse.linalg.LinearOperator((size, size), apply, matmat=apply)
    start = np.random.default_rng(0).standard_normal((size, 2))

    def ours() -> NDArray[np.float64]:
        return second_smallest(graph).vectors[0] * graph.degrees[0] ** 0.5

    def arpack() -> NDArray[np.float64]:
        values, vectors = scipy.sparse.linalg.eigsh(operator, k=2, which="LA", v0=start[:, 0])
        return vectors[:, np.argsort(values)[0]]

    def lobpcg(block: int) -> NDArray[np.float64]:
        values, vectors = scipy.sparse.linalg.lobpcg(
            operator, start[:, :block], Y=trivial[:, None], largest=True, tol=1e-10, maxiter=500
        )
        return vectors[:, np.argmax(values)]

    def embedding() -> NDArray[np.float64]:
        from sklearn.manifold import spectral_embedding

        affinity = published_affinity(keys, TAU, EPS)
        vectors = spectral_embedding(
            affinity, n_components=1, eigen_solver="arpack", drop_first=True, random_state=0
        )
        return vectors[:, 0] * graph.degrees[0] ** 0.5

    def dense() -> NDArray[np.float64]:
        deflated = graph.dense_normalised(0) - 2.0 * np.outer(trivial, trivial)
        return scipy.linalg.eigh(deflated, subset_by_index=[size - 1, size - 1])[1][:, 0]

    alternatives: dict[str, Callable[[], NDArray[np.float64]]] = {
        "Lanczos, trivial vector deflated (ours)": ours,
        "ARPACK (`eigsh`, two vectors)": arpack,
        "LOBPCG, block of 1": partial(lobpcg, 1),
        "LOBPCG, block of 2": partial(lobpcg, 2),
        "dense symmetric (`eigh`, one vector), our fall-back": dense,
    }
    if _is_installed("sklearn"):
        alternatives["scikit-learn `spectral_embedding`"] = embedding
    rows = []
    for name, solve in alternatives.items():
        slow = solve in (dense, embedding)
        timing = time_each({name: solve}, repeats=1 if slow else 5, warm_up=not slow)[name]
        graph.products = 0
        vector = solve()
        vector /= np.linalg.norm(vector)
        counted = str(graph.products) if graph.products else "-"
        image = graph.apply_normalised(vector[None])[0]
        residual = np.linalg.norm(image - (vector @ image) * vector)
        rows.append([name, spelled(timing.median), counted, f"{residual:.0e}"])
    return Table(
        f"Ways to the second eigenvector of one graph of {size:,} patches, and how often they "
        "multiply with the affinity. The residual is that of the normalised affinity.",
        ["solver", "time", "products", "residual"],
        rows,
    )


def storages(keys: Keys) -> Table:
    """One product with the zeros and ones, by how they are kept."""
    from kernels.ncut.adjacency_cpu import BitAdjacency

    adjacency = cosine_adjacency(keys[None], TAU, np)
    assert isinstance(adjacency, BitAdjacency)
    dense = adjacency.dense(0)
    size = len(keys)
    bytes_ = dense.view(np.uint8)
    doubles, floats = dense.astype(np.float64), dense.astype(np.float32)
    vector = np.random.default_rng(0).standard_normal((1, size))
    short = vector[0].astype(np.float32)
    alternatives: dict[str, tuple[int, Callable[[], object]]] = {
        "bits, sums of eight looked up (ours)": (
            size * size // 8,
            partial(adjacency.matvec, vector),
        ),
        "bytes, multiplied": (size * size, lambda: _multiply_bytes(bytes_, vector[0])),
        "float64, BLAS": (8 * size * size, lambda: doubles @ vector[0]),
        "float32, BLAS": (4 * size * size, lambda: floats @ short),
    }
    timed = time_each({name: call for name, (_, call) in alternatives.items()}, repeats=15)
    first = next(iter(timed.values())).median
    limits = ceilings()
    rows = []
    for name, (size_bytes, _) in alternatives.items():
        in_cache = size_bytes < 32 << 20
        floor = size_bytes / (limits.cache_bytes if in_cache else limits.memory_bytes)
        median = timed[name].median
        rows.append(
            [
                name,
                f"{size_bytes / 2**20:.1f} MiB",
                spelled(median),
                f"{median / first:.1f} x",
                f"{floor / median:.0%} of {'cache' if in_cache else 'memory'}",
            ]
        )
    return Table(
        f"One product with the zeros and ones of {size:,} patches.",
        ["storage", "size", "time", "against ours", "share of the bytes' floor"],
        rows,
    )


def peer_cells(keys: Keys) -> list[str]:
    """One solve by ncut-pytorch, and its agreement."""
    approximate = nystrom(keys)
    if approximate is None:
        return ["-", "-"]
    timed = time_each({"theirs": approximate}, repeats=1, warm_up=False)
    return [spelled(timed["theirs"].median), agreement(keys)]


@njit(fastmath={"reassoc", "contract"})
def _multiply_bytes(
    adjacency: NDArray[np.uint8], vector: NDArray[np.float64]
) -> NDArray[np.float64]:
    sums = np.empty(len(vector))
    for row in range(adjacency.shape[0]):
        total = 0.0
        for column in range(adjacency.shape[1]):
            total += adjacency[row, column] * vector[column]
        sums[row] = total
    return sums


def growth(options: Options) -> Table:
    """How cost grows with tokens; keys of the embedded backbone, widened to 768 dimensions."""
    (image,) = photographs(options, 1)
    sides = (30, 40) if options.quick else (30, 40, 60, 80, 120)
    rows = []
    for side in sides:
        key = widened(vit_keys([image], 8 * side)[0].reshape(side * side, -1))
        repeats = 1 if side > 60 else 3
        calls = {
            "affinity": partial(cosine_adjacency, key[None], TAU, np),
            "three": partial(maskcut, key, (side, side)),
        }
        timed = {name: each.median for name, each in time_each(calls, repeats=repeats).items()}
        dense = None
        if side * side <= (900 if options.quick else 3600):
            nothing = np.zeros(side * side, bool)
            solve = {"dense": partial(published_eigenpair, key, nothing)}
            dense = time_each(solve, repeats=1, warm_up=False)["dense"].median
        rows.append(
            [
                f"{side * side:,}",
                spelled(timed["affinity"]),
                spelled(timed["three"]),
                f"{side**4 / 8 / 2**20:.1f} MiB",
                spelled(dense) if dense else "not run",
                *peer_cells(key),
            ]
        )
    return Table(
        "Growth with tokens, keys of the embedded backbone for one photograph. Above 8,192 tokens "
        "ncut-pytorch samples (Nystroem).",
        [
            "tokens",
            "affinity",
            "three masks",
            "graph",
            "one dense solve",
            "ncut-pytorch, one solve",
            "its agreement",
        ],
        rows,
    )


def _grid(keys: Keys) -> tuple[int, int]:
    side = round(len(keys) ** 0.5)
    return side, side


def _is_installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None
