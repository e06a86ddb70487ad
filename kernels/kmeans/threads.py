"""Blocks searched in parallel, one thread each, with results in the order of the blocks.

faiss and BLAS get one thread each: the bits of their products would otherwise depend on the number of
threads, which would also synchronise at every small product.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from kernels.backend import Backend, resolve_backend
from kernels.kmeans.nearest import Nearest, TwoNearest, faiss_obstacle, search_of
from kernels.kmeans.points import Points, Rows, blocks

Result = TypeVar("Result")
Work = Callable[[Rows, slice, TwoNearest], Result]
"""Called in a thread with a block relative to the mean, its slice of the rows, and the search."""

# BLAS's number of threads is a setting of the process.
_BLAS_LOCK = threading.RLock()


@contextmanager
def block_threads(backend: Backend) -> Iterator["BlockThreads"]:
    """Yield as many threads as BLAS would use, or one that feeds the GPU; raises as `kmeans`."""
    from threadpoolctl import threadpool_info, threadpool_limits

    resolved = resolve_backend(backend, faiss_obstacle)
    search = search_of(resolved)
    with _BLAS_LOCK:
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
    """Threads, and a buffer for each block in progress."""

    def __init__(self, pool: ThreadPoolExecutor, search: TwoNearest, threads: int) -> None:
        self._pool = pool
        self._search = search
        # One more than threads, for the block whose result the caller is using.
        self._buffers = [_Buffer() for _ in range(threads + 1)]

    def search(self, rows: Rows, centroids: Rows) -> Nearest:
        """Search outside of `run`, in one of the threads, for equal bits."""
        return self._pool.submit(self._search, rows, centroids).result()

    def run(
        self, points: Points, mean: Rows, work: Work[Result]
    ) -> Iterator[tuple[slice, Rows, Result]]:
        """Yield every block's slice, the block relative to the mean, and the result of `work`.

        The block's memory is reused once the next one is requested.
        """

        def task(centered: Rows, here: slice) -> Result:
            return work(centered, here, self._search)

        free = list(self._buffers)
        waiting: deque[tuple[slice, _Buffer, Future[tuple[Rows, Result]]]] = deque()
        start = 0
        for block in blocks(points):
            if not free:
                here, buffer, future = waiting.popleft()
                yield here, *future.result()
                free.append(buffer)
            here = slice(start, start + len(block))
            start = here.stop
            buffer = free.pop()
            waiting.append((here, buffer, self._pool.submit(buffer.run, task, block, mean, here)))
        for here, _, future in waiting:
            yield here, *future.result()


class _Buffer:
    """Reusable memory for one block at a time."""

    def __init__(self) -> None:
        self._memory: Rows = np.empty((0, 0), np.float32)

    def run(
        self, task: Callable[[Rows, slice], Result], block: Rows, mean: Rows, here: slice
    ) -> tuple[Rows, Result]:
        # Relative to the mean: far from the origin float32 would lose the distances.
        if len(self._memory) < len(block) or self._memory.shape[1] != block.shape[1]:
            self._memory = np.empty_like(block)
        centered = np.subtract(block, mean, out=self._memory[: len(block)])
        return centered, task(centered, here)
