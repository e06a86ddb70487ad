"""Locks between runs: who waits says for whom, and a killed process keeps nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from assets.stages.locks import gpu_locked, locked, reading, remove_unless_read
from pipelines.settings import ROOT

# Dagster gives SIGTERM the handler of SIGINT, which a shell's background job ignores; a child of a
# test process in which Dagster ran would inherit that.
HOLD = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)
import sys, time
from pathlib import Path
from assets.stages.locks import locked
with locked(Path(sys.argv[1]), "the features", "run 1a2b3c4d", print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "stage" / ".lock"


@pytest.fixture
def holder(lock):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_waits_says_for_whom_and_goes_on_once_the_holder_is_killed(lock, holder):
    lines = []

    def kill_once_somebody_waits(sentence):
        lines.append(sentence)
        os.kill(holder.pid, signal.SIGKILL)

    with locked(lock, "the features", "run 5e6f7a8b", kill_once_somebody_waits):
        assert "run 5e6f7a8b" in Path(f"{lock}.holder").read_text()
    (sentence,) = lines
    assert sentence.startswith("waiting for the features: run 1a2b3c4d (process ")
    assert f"process {holder.pid} on " in sentence


def test_waiting_costs_no_processor_time_to_speak_of(lock, holder):
    threading.Timer(2, holder.kill).start()
    before, started = time.process_time(), time.monotonic()
    with locked(lock, "the features", "run 5e6f7a8b", lambda sentence: None):
        waited = time.monotonic() - started
    assert time.process_time() - before < waited / 10


def test_sigterm_ends_a_waiting_process(lock, holder):
    waiting = subprocess.Popen(
        [sys.executable, "-u", "-c", HOLD, str(lock)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdout.readline().startswith("waiting for the features")
    waiting.terminate()
    waiting.communicate(timeout=10)
    assert waiting.returncode == -signal.SIGTERM
    assert holder.poll() is None


def test_a_lock_is_free_again_after_an_error(lock):
    def fail_inside():
        with locked(lock, "the features", "run 1", lines.append):
            raise RuntimeError("broke")

    lines = []
    with pytest.raises(RuntimeError, match="broke"):
        fail_inside()
    with locked(lock, "the features", "run 2", lines.append):
        pass
    assert lines == []


def test_a_folder_is_not_removed_while_it_is_read(tmp_path):
    folder = tmp_path / "v-aaaa"
    folder.mkdir()
    with reading(folder), reading(folder):
        remove_unless_read(folder)
        assert folder.exists()
    remove_unless_read(folder)
    assert not folder.exists()


def test_a_shard_is_not_removed_while_its_stage_is_read(tmp_path):
    shard = tmp_path / "00001-aaaa"
    shard.mkdir()
    with reading(tmp_path):
        remove_unless_read(shard, guard=tmp_path)
        assert shard.exists()
    remove_unless_read(shard, guard=tmp_path)
    assert not shard.exists()


def test_what_needs_no_gpu_takes_no_lock(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with gpu_locked(False, "run 1", print):
        assert list(tmp_path.iterdir()) == []
