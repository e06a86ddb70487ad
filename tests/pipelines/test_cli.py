"""The documented command lines, run as a user runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.settings import ROOT

BIN = Path(sys.executable).parent


@pytest.fixture
def environment(tmp_path):
    """A fresh Dagster home with the project's own instance file, and an empty store."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    kept = {name: value for name, value in os.environ.items() if "EXNIHILO" not in name}
    return kept | {"DAGSTER_HOME": str(tmp_path), "EXNIHILO_STORE": str(tmp_path / "store")}


def call(environment, *command):
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def write_config(tmp_path, config):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return str(path)


def test_the_workspace_is_valid(environment):
    run = call(environment, "dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert run.returncode == 0, run.stderr


def test_a_job_without_a_cluster_count_names_the_option(environment):
    config = "pipelines/configs/sample.yaml"
    command = ["dagster", "job", "execute", "-m", "pipelines.definitions", "-j", "u2seg", "-c"]
    run = call(environment, *command, config)
    assert run.returncode != 0
    assert "add --tags" in run.stdout + run.stderr
    assert not (Path(environment["EXNIHILO_STORE"]) / "sample" / "sample_scenes-1-72-28").exists()


def test_both_launchers_register_clusterings(environment, tmp_path):
    for number, command in enumerate(
        (
            ["dagster", "job", "execute", "-m", "pipelines.definitions", "-j"],
            ["dg", "launch", "--job"],
        )
    ):
        counts = {"ops": {"add_clusterings": {"config": {"counts": [30 + number]}}}}
        option = "-c" if command[0] == "dagster" else "--config"
        path = write_config(tmp_path, counts)
        run = call(environment, *command, "register_clusterings", option, path)
        assert run.returncode == 0, run.stdout + run.stderr
        assert f"registered k003{number}" in run.stdout + run.stderr


def test_show_says_what_to_run_first(environment):
    run = call(environment, "python", "-m", "pipelines.show", "--clustering", "k0012")
    assert run.returncode == 1
    assert "run the job u2seg" in run.stderr


@pytest.mark.parametrize("count", ["abc", "0", "3.5", "-1"])
def test_make_run_refuses_what_is_no_cluster_count(environment, count):
    run = subprocess.run(
        ["make", "-n", "run", f"CLUSTERS={count}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"CLUSTERS must be a whole number above 0, got {count}" in run.stderr
