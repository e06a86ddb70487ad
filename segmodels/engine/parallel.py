"""Parallel map over images in threads, with bounded memory.

Threads are enough, as decoding, matrix products and the compiled kernels release the GIL. Each
image is computed in one thread: two images in parallel are faster than two threads an image, and
results do not depend on the number of cores.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_threads() -> int:
    """Threads that this process should use: OMP_NUM_THREADS if set, else its cores."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) > 0 else len(os.sched_getaffinity(0))


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    initializer: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Apply a function to items in threads; yield the results in the order of the items.

    Memory is bounded: at most 2 * `workers` items are submitted and not yet yielded. An error is
    raised in place of its item's result, and no further item is started.

    Args:
        function: called from several threads.
        items: taken one by one.
        workers: threads, at least 1.
        initializer: called once in each thread.

    Raises:
        ValueError: `workers` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    source = iter(items)
    with ThreadPoolExecutor(workers, initializer=initializer) as pool:
        pending: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(source, 2 * workers)
        )
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def map_images(function: Callable[[Item], Result], images: Iterable[Item]) -> Iterator[Result]:
    """`map_in_order` with all threads of this process, each image in one thread."""
    with _single_threaded_blas():
        yield from map_in_order(
            function, images, workers=available_threads(), initializer=_one_kernel_thread
        )


@contextmanager
def _single_threaded_blas() -> Iterator[None]:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


def _one_kernel_thread() -> None:
    import numba
    from threadpoolctl import threadpool_limits

    numba.set_num_threads(1)
    # OpenMP, and a BLAS on top of it, count threads for each thread that calls them.
    threadpool_limits(limits=1)
