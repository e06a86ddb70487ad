"""Runs that are killed, wait or fail, by the commands that users type."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from assets.stages.store import Dataset, Store
from pipelines.settings import ROOT

BIN = Path(sys.executable).parent
STAGES = {
    "images": {"sample": True, "sample_train": 8, "sample_val": 2, "shard_size": 2},
    "dino_features": {"backbone": "embedded", "image_size": 96, "batch_size": 2},
}


class User:
    """Somebody at a shell, with a Dagster home, a store and one run config of their own."""

    def __init__(self, home: Path) -> None:
        shutil.copy(ROOT / "dagster.yaml", home)
        self.config = home / "config.yaml"
        self.write_config()
        kept = {name: value for name, value in os.environ.items() if "EXNIHILO" not in name}
        self.environment = kept | {
            "DAGSTER_HOME": str(home),
            "EXNIHILO_STORE": str(home / "store"),
            "PYTHONWARNINGS": "ignore:Function",
        }
        self.store = Store(root=str(home / "store"), dataset=Dataset(name="tiny"))

    def write_config(self, **changed):
        dataset = {"name": "tiny", "stages": STAGES | changed}
        config = {
            "execution": {"config": {"in_process": {}}},
            "resources": {"dataset": {"config": dataset}},
        }
        self.config.write_text(json.dumps(config))  # JSON is YAML

    def start(self, job, key="k0003"):
        command = [BIN / "dagster", "job", "execute", "-m", "pipelines.definitions", "-j", job]
        tags = json.dumps({"dagster/partition": key})
        return subprocess.Popen(
            [*command, "-c", str(self.config), "--tags", tags],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, job, key="k0003"):
        process = self.start(job, key)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


def read_until(process, sentence):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if sentence in line:
            return
    pytest.fail(f"{sentence!r} was never said:\n{''.join(lines)}")


def wait_for_end(processes, seconds):
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert alive == []


def test_a_run_killed_in_the_features_goes_on_where_it_was(user):
    killed = user.start("discover")
    read_until(killed, "dino_features: shard")
    workers = psutil.Process(killed.pid).children(recursive=True)
    assert workers
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    wait_for_end(workers, 10)

    code, output = user.run("discover")

    assert code == 0, output
    assert f"(discover) died: process {killed.pid} is gone" in output
    kept = re.search(r"dino_features: 5 shards, (\d) already there", output)
    assert kept is not None
    assert int(kept[1]) >= 1
    assert list((user.store.stage("dino_features").path / "shards").glob(".tmp-*")) == []


def test_a_second_run_waits_for_the_first_says_so_and_ends_on_sigterm(user):
    first = user.start("discover")
    read_until(first, "dino_features: 5 shards")
    second = user.start("discover")
    read_until(second, "waiting for ")
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=30)
    assert second.returncode != 0
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output


def test_the_last_line_of_a_failed_run_is_its_reason(user):
    user.write_config(thing_masks={"min_score": 7})
    code, output = user.run("recluster", "k0002")
    assert code != 0
    last = output.strip().splitlines()[-1]
    assert last.startswith("instance_embeddings failed: dino_features has no result")
    assert "Warning" not in output


def test_a_command_begins_without_warnings_and_keeps_its_state_in_its_home(user, tmp_path):
    before = {path.name for path in ROOT.iterdir()}
    code, output = user.run("register_clusterings")
    assert code != 0
    assert not re.search(r"^.*Warning", output, re.MULTILINE)
    assert (tmp_path / "history").exists()
    assert {path.name for path in ROOT.iterdir()} == before
