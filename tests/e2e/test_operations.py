"""Runs that are killed, and new images between nights, by the commands that users type."""

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
from segmodels.formats.arrow import read_table

BIN = Path(sys.executable).parent
STAGES = {
    "images": {"sample": True, "sample_train": 8, "sample_val": 2, "shard_size": 2},
    "dino_features": {"backbone": "embedded", "image_size": 96, "batch_size": 2},
    "stuff_features": {"size": 64},
    "stuff_model": {"steps": 4, "batch_size": 4, "num_clusters": 4},
    "stuff_segments": {"size": 64},
    "instance_embeddings": {"crop_size": 64},
    "segmenter": {"iterations": 3, "short_sides": [96], "batch_size": 2},
    "predictions": {"short_side": 96, "score_threshold": 0.0},
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

    def table(self, stage, file_name):
        return read_table(self.store.stage(stage).require().folder / file_name)


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


def test_new_images_and_then_a_new_cluster_count(user, tmp_path):
    code, output = user.run("u2seg")
    assert code == 0, output
    scenes = next(user.store.stage("images").path.parent.glob("sample_scenes-*")) / "train"
    photos = tmp_path / "photos"
    photos.mkdir()
    pictures = sorted(path for path in scenes.rglob("*") if path.suffix in {".jpg", ".png"})
    for path in pictures[:5]:
        shutil.copy(path, photos)
    user.write_config(images={"sources": [{"images": str(photos)}], "shard_size": 2})
    assert user.run("u2seg")[0] == 0
    for path in pictures[5:8]:
        shutil.copy(path, photos)

    code, output = user.run("discover")
    assert code == 0, output
    code, output = user.run("recluster", "k0002")

    assert code == 0, output
    ids = set(user.table("thing_masks", "masks.arrow")["instance_id"].to_pylist())
    clustered = read_table(
        user.store.stage("instance_clusters", "k0002").require().folder / "clusters.arrow"
    )
    assert set(clustered["instance_id"].to_pylist()) == ids
    assert re.search(r"stuff_segments: 5 shards, 3 already there, 2 to compute", output)


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
