"""Locks between runs: one run a stage's folder, one a GPU; readers keep a version in place.

The operating system holds them (flock), so a killed process cannot keep one. Whoever waits says
whom it waits for, sleeps meanwhile, and ends on Ctrl-C and SIGTERM.
"""

import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_LOOK_EVERY_S = 1
_SAY_EVERY_S = 60


@contextmanager
def locked(lock: Path, what: str, run: str, log: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock for the length of a block.

    Args:
        lock: the lock's file; a second one beside it says who holds it.
        what: what is locked, for the sentence of those who wait.
        run: who holds it, for the same sentence.
        log: takes a sentence when the lock is taken by another, once a minute.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = lock.with_suffix(".holder")
    held = FileLock(lock)
    waited = 0
    while True:
        try:
            held.acquire(blocking=False)
            break
        except Timeout:
            if waited % _SAY_EVERY_S == 0:
                log(f"waiting for {what}: {_read_holder(holder)} holds it")
            time.sleep(_LOOK_EVERY_S)
            waited += _LOOK_EVERY_S
    try:
        since = time.strftime("%H:%M:%S")
        holder.write_text(f"{run} (process {os.getpid()} on {socket.gethostname()}, since {since})")
        yield
    finally:
        held.release()


@contextmanager
def gpu_locked(needed: bool, run: str, log: Callable[[str], None]) -> Iterator[None]:
    """Hold this machine's GPU for the length of a block, where the block computes on one."""
    if not needed:
        yield
        return
    folder = Path(tempfile.gettempdir()) / f"exnihilo-{os.getuid()}"
    with locked(folder / "gpu.lock", "the GPU", run, log):
        yield


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep a finished folder from being removed for the length of a block.

    Several may read one folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def remove_unless_read(folder: Path, guard: Path | None = None) -> None:
    """Remove a replaced folder, unless it, or the folder that guards it, is being read.

    What is left is removed when the stage is next brought up to date.
    """
    handle = os.open(guard or folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


def _read_holder(holder: Path) -> str:
    try:
        return holder.read_text() or "another run"
    except OSError:
        return "another run"
