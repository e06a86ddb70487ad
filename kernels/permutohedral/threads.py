"""Who may run a parallel loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from numba import get_num_threads

_turn = Lock()


@contextmanager
def claimed_threads() -> Iterator[int]:
    """Give the number of threads for parallel loops: Numba's, or 1 while another has claimed them.

    Two Python threads that both filled all cores would only wait for each other; and one of
    Numba's threading layers, the one that needs no OpenMP, ends the process when that happens.
    """
    wanted = get_num_threads()
    if wanted == 1 or not _turn.acquire(blocking=False):
        yield 1
        return
    try:
        yield wanted
    finally:
        _turn.release()
