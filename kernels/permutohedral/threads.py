"""Threads of parallel compiled loops."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from numba import get_num_threads

_turn = Lock()


@contextmanager
def claimed_threads() -> Iterator[int]:
    """Yield the number of threads for parallel loops: Numba's, or 1 while another caller has them.

    Parallel loops of two Python threads would wait for each other, and Numba's workqueue threading
    layer aborts the process when they overlap.
    """
    wanted = get_num_threads()
    if wanted == 1 or not _turn.acquire(blocking=False):
        yield 1
        return
    try:
        yield wanted
    finally:
        _turn.release()
