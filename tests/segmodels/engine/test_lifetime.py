"""Processes end with their parent: real parents, killed by SIGKILL.

All processes of a test inherit one pipe, which ends when the last of them has ended.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segmodels.engine.lifetime import PARENT_PID

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 5

CHILD = """
import os, time
from segmodels.engine.lifetime import end_with_parent
end_with_parent()
os.write(1, f"child {os.getpid()}\\n".encode())
time.sleep(600)
"""
PARENT_OF_PROCESS = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}])
"""
# The thread that starts the workers ends at once, as helper threads do.
PARENT_OF_POOL = """
import multiprocessing, os, threading, time
from concurrent.futures import ProcessPoolExecutor
from segmodels.engine.lifetime import end_with_parent

def work(seconds):
    time.sleep(seconds)
    os.write(1, f"child {os.getpid()}\\n".encode())
    time.sleep(600)

if __name__ == "__main__":
    pool = ProcessPoolExecutor(
        2, multiprocessing.get_context("spawn"), end_with_parent, (os.getpid(),)
    )
    helper = threading.Thread(target=lambda: [pool.submit(work, 2.5) for _ in range(2)])
    helper.start()
    helper.join()
    time.sleep(600)
"""
PARENT_OF_TORCHRUN = """
import subprocess, sys
subprocess.run([
    sys.executable, "-m", "segmodels.engine.torchrun", "--standalone", "--nproc-per-node", "2",
    sys.argv[1],
])
"""


def started(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def children_of(parent: subprocess.Popen[str], number: int) -> list[int]:
    """Ids of its descendants, once all of them work."""
    assert parent.stdout is not None
    lines = [parent.stdout.readline().split() for _ in range(number)]
    assert [line[:1] for line in lines] == [["child"]] * number
    return [int(line[1]) for line in lines]


def killed_with_all(parent: subprocess.Popen[str], children: list[int]) -> bool:
    parent.kill()
    try:
        parent.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        for child in children:
            os.kill(child, signal.SIGKILL)
        return False
    return True


def test_a_process_ends_with_its_parent_and_not_before() -> None:
    parent = started("-c", PARENT_OF_PROCESS)
    children = children_of(parent, 1)
    with pytest.raises(subprocess.TimeoutExpired):
        parent.wait(timeout=2.5)
    os.kill(children[0], 0)
    assert killed_with_all(parent, children)


def test_pool_workers_outlive_the_thread_that_started_them_but_not_its_process(
    tmp_path: Path,
) -> None:
    script = tmp_path / "pool.py"
    script.write_text(PARENT_OF_POOL)
    parent = started(script)
    assert killed_with_all(parent, children_of(parent, 2))


def test_torchrun_and_its_processes_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(CHILD)
    parent = started("-c", PARENT_OF_TORCHRUN, script)
    assert killed_with_all(parent, children_of(parent, 2))


def test_a_parent_that_died_before_the_watch_began_is_noticed() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=ROOT,
        env={**os.environ, PARENT_PID: str(gone.pid)},
        timeout=WITHIN_S,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    assert child.returncode == -signal.SIGKILL


def test_the_handed_process_id_is_not_passed_on() -> None:
    script = (
        "import os; from segmodels.engine.lifetime import PARENT_PID, end_with_parent;"
        "end_with_parent(); print(PARENT_PID in os.environ)"
    )
    environment = {**os.environ, PARENT_PID: str(os.getpid())}
    child = [sys.executable, "-c", script]
    assert subprocess.check_output(child, cwd=ROOT, env=environment, text=True) == "False\n"
