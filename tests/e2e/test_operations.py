"""Runs that are killed, wait or fail, by the commands that users type."""

import re
import signal

import pytest
from shell_user import ShellUser, read_until

from pipelines.settings import ROOT


@pytest.fixture
def user(tmp_path):
    return ShellUser(tmp_path)


def test_a_run_killed_in_the_features_goes_on_where_it_was(user):
    killed = user.kill_at("discover", "dino_features: shard")

    code, output = user.run("discover")

    assert code == 0, output
    assert f"(discover) died: process {killed} is gone" in output
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
    state = ("history", "schedules", "storage")
    before = [(ROOT / name).exists() for name in state]
    code, output = user.run("register_clusterings")
    assert code != 0
    assert not re.search(r"^.*Warning", output, re.MULTILINE)
    assert (tmp_path / "history").exists()
    assert [(ROOT / name).exists() for name in state] == before
