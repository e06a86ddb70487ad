"""Child processes that end when their parent dies, so that no killed run leaves training behind."""

import os
import signal
import threading
import time

PARENT_PID = "END_WITH_PARENT_PID"
"""Environment variable in which a parent may hand its process id to the child that it starts."""

_INTERVAL_S = 1.0


def end_with_parent(parent: int | None = None) -> None:
    """Kill this process within about a second of its parent's death, however the parent dies.

    Call it before heavy imports at the start of a process, or as the initializer of a process pool.
    A thread watches `os.getppid`. Linux can send a signal instead (PR_SET_PDEATHSIG), but sends it
    when the parent's THREAD that started this process ends, as helper threads of pools do.

    Args:
        parent: process id of the parent; by default that of the variable `PARENT_PID`, which is
            then removed. Without either, a parent that died before this call goes unnoticed.
    """
    handed = os.environ.pop(PARENT_PID, None)
    if parent is None:
        parent = os.getppid() if handed is None else int(handed)
    threading.Thread(target=_watch, args=(parent,), name="end-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL_S)
    # Files are written atomically; a signal that could be handled might not end the process.
    os.kill(os.getpid(), signal.SIGKILL)
