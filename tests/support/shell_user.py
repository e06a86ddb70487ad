"""Somebody at a shell, who types the documented commands."""

import json
import os
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
# The whole chain, as small as it goes.
STAGES = {
    "images": {"sample": True, "sample_train": 8, "sample_val": 2, "shard_size": 2},
    "dino_features": {"backbone": "embedded", "image_size": 96, "batch_size": 2},
    "stuff_features": {"size": 64},
    "stuff_model": {"steps": 40, "batch_size": 4, "num_clusters": 4},
    "stuff_segments": {"size": 64},
    "instance_embeddings": {"crop_size": 64},
    "segmenter": {"iterations": 12, "short_sides": [96], "batch_size": 2, "checkpoint_every": 4}
    | {"progress_every": 2},
    "predictions": {"short_side": 96, "score_threshold": 0.0},
}


class ShellUser:
    """A user with a Dagster home, a store and one run config of their own."""

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

    def kill_at(self, job, sentence, key="k0003"):
        """Start a job and kill its process, as the out-of-memory killer would, at a sentence.

        Returns the process id; the run's other processes have ended by themselves.
        """
        process = self.start(job, key)
        read_until(process, sentence)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
        return process.pid


def read_until(process, sentence):
    """Read a process's output up to a line that holds a sentence."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if sentence in line:
            return
    pytest.fail(f"{sentence!r} was never said:\n{''.join(lines)}")
