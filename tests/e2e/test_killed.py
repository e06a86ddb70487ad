"""A run that is killed in any long stage and started again ends with an undisturbed run's bytes."""

import re
import shutil

import pytest
import torch
from shell_user import ShellUser

from segmodels.datasets.readers import READERS

# Each is said in the middle of its stage.
MARKS = {
    "dino_features": "dino_features: shard",
    "maskcut_masks": "maskcut_masks: shard",
    "thing_masks": "thing_masks: shard",
    "stuff_features": "stuff_features: shard",
    "stuff_model": "stuff_model: step 2",
    "stuff_segments": "stuff_segments: shard",
    "instance_embeddings": "instance_embeddings: shard",
    "pseudo_labels": "pseudo_labels: shard",
    "segmenter": "segmenter: step 6",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Images at one place for all runs, so that stored paths are the same."""
    root = tmp_path_factory.mktemp("images")
    return [vars(source) for source in READERS["sample"](str(root), 8, 2)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, sources):
    user = new_user(tmp_path_factory.mktemp("undisturbed"), sources)
    code, output = user.run("u2seg")
    assert code == 0, output
    return results(user)


def new_user(home, sources):
    user = ShellUser(home)
    user.write_config(images={"sources": sources, "shard_size": 2})
    return user


def results(user):
    """Every stored file by its path, without what says when, where and by which process."""
    files = {}
    root = user.store.stage("images").path.parent
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = str(path.relative_to(root))
        if path.suffix == ".pth":
            files[name] = weights(path)
        elif not re.search(
            r"\.lock|manifest\.txt|segmenter/.*(\d{8}_\d{6}|config\.py|last_ch)", name
        ):
            files[name] = path.read_bytes().replace(str(root).encode(), b"")
    return files


def weights(path):
    state = torch.load(path, weights_only=False)["state_dict"]
    return b"".join(tensor.numpy().tobytes() for tensor in state.values())


@pytest.mark.parametrize("stage", MARKS)
def test_a_stage_that_is_killed_ends_as_if_it_were_not(stage, undisturbed, sources, tmp_path):
    user = new_user(tmp_path, sources)
    user.kill_at("u2seg", MARKS[stage])
    code, output = user.run("u2seg")
    assert code == 0, output
    assert "is gone; it is marked as failed" in output
    found = results(user)
    assert sorted(found) == sorted(undisturbed)
    assert [name for name in found if found[name] != undisturbed[name]] == []
    shutil.rmtree(tmp_path / "store")
