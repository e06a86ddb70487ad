"""Blocks searched side by side, each in one thread, with results in the order of the blocks.

faiss and BLAS are held to one thread each meanwhile: the bits of their products would otherwise depend
on how many share the work, and threads wait for each other at every small product.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from kernels.backend import Backend
from kernels.kmeans.nearest import Nearest, TwoNearest, resolve_faiss_backend, search_of
from kernels.kmeans.points import Points, Rows, blocks

Result = TypeVar("Result")
Work = Callable[[Rows, slice, TwoNearest], Result]
"""Called in a thread with a block around the mean, its rows' place, and the search."""

# How many threads BLAS may use belongs to the whole process.
_ALONE = threading.RLock()


@contextmanager
def block_threads(backend: Backend) -> Iterator["BlockThreads"]:
    """Hold as many threads as BLAS would use, or one that feeds the GPU.

    Raises:
        BackendUnavailableError: "gpu" was asked for and there is none.
        ValueError: Any other word than the three.
    """
    from threadpoolctl import threadpool_info, threadpool_limits

    resolved = resolve_faiss_backend(backend)
    search = search_of(resolved)
    with _ALONE:
        pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        threads = max(pools, default=1) if resolved == "cpu" else 1
        with (
            threadpool_limits(limits=1, user_api="blas"),
            ThreadPoolExecutor(threads, initializer=_one_thread) as pool,
        ):
            yield BlockThreads(pool, search, threads)


def _one_thread() -> None:
    import faiss

    faiss.omp_set_num_threads(1)  # of the thread that calls, not of the process


class BlockThreads:
    """Threads, and as many desks as there may be blocks under way."""

    def __init__(self, pool: ThreadPoolExecutor, search: TwoNearest, threads: int) -> None:
        self._pool = pool
        self._search = search
        # One more than threads, as the block whose result is being used is still needed.
        self._desks = [_Desk() for _ in range(threads + 1)]

    def search(self, rows: Rows, centroids: Rows) -> Nearest:
        """Search outside of `run`, in one of the threads: there the bits are the same."""
        return self._pool.submit(self._search, rows, centroids).result()

    def run(
        self, points: Points, mean: Rows, work: Work[Result]
    ) -> Iterator[tuple[slice, Rows, Result]]:
        """Yield every block's place, the block around the mean, and what `work` made of it.

        A block lies in memory that is used again once the next one is asked for.
        """

        def task(centred: Rows, here: slice) -> Result:
            return work(centred, here, self._search)

        free = list(self._desks)
        waiting: deque[tuple[slice, _Desk, Future[tuple[Rows, Result]]]] = deque()
        start = 0
        for block in blocks(points):
            if not free:
                here, desk, future = waiting.popleft()
                yield here, *future.result()
                free.append(desk)
            here = slice(start, start + len(block))
            start = here.stop
            desk = free.pop()
            waiting.append((here, desk, self._pool.submit(desk.do, task, block, mean, here)))
        for here, _, future in waiting:
            yield here, *future.result()


class _Desk:
    """The memory that one block at a time is worked on in."""

    def __init__(self) -> None:
        self._memory: Rows = np.empty((0, 0), np.float32)

    def do(
        self, task: Callable[[Rows, slice], Result], block: Rows, mean: Rows, here: slice
    ) -> tuple[Rows, Result]:
        # Distances are taken around the mean: far from the origin float32 would lose them.
        if len(self._memory) < len(block) or self._memory.shape[1] != block.shape[1]:
            self._memory = np.empty_like(block)
        centred = np.subtract(block, mean, out=self._memory[: len(block)])
        return centred, task(centred, here)
