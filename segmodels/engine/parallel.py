"""A bounded pipeline over images: what one waits for, another one computes.

Threads are enough, as decoding, matrix products and the compiled kernels release the interpreter.
Each then computes with a single thread: two images side by side are faster than two threads an
image, and results cannot depend on how many cores share the work.
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
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) > 0 else len(os.sched_getaffinity(0))


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    initializer: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Apply a function to items in threads; yield the results in the items' order.

    At most `workers` items are being worked on and as many results wait to be taken, whatever the
    number of items: memory is bounded. The first error is raised in its item's place, and no
    further item is begun.

    Args:
        function: Called from several threads.
        items: Taken one by one, as room comes free.
        workers: Threads, at least 1.
        initializer: Called once in each thread.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    source = iter(items)
    with ThreadPoolExecutor(workers, initializer=initializer) as pool:
        waiting: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(source, 2 * workers)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def map_images(function: Callable[[Item], Result], images: Iterable[Item]) -> Iterator[Result]:
    """Do as `map_in_order` with all threads of this process, each image in one thread."""
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
