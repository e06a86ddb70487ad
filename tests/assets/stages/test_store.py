"""The store: atomic versions, pointers, digests."""

import json
from dataclasses import dataclass

import pytest

from assets.stages.manifest import DamagedResultError
from assets.stages.store import Dataset, MissingStageError, Store, digest_of, write_atomically


@dataclass(frozen=True)
class Point:
    x: int
    y: float


@pytest.fixture
def store(tmp_path):
    return Store(root=str(tmp_path), dataset=Dataset(name="birds"))


def publish(stage, digest, text):
    with stage.new_version(digest) as folder:
        (folder / "answer.txt").write_text(text)
    return stage.point_to(digest, settings={"a": 1}, summary={"n": 2})


def break_while_writing(version, name):
    with version as folder:
        (folder / name).write_text("half")
        raise RuntimeError("broke")


def test_equal_values_give_equal_digests_whatever_their_order():
    assert digest_of({"a": 1, "b": [2.5]}) == digest_of({"b": [2.5], "a": 1})
    assert digest_of(Point(1, 2.0)) == digest_of({"x": 1, "y": 2.0})
    assert digest_of(Point(1, 2.0)) != digest_of(Point(2, 2.0))


def test_a_digest_refuses_what_json_cannot_say():
    with pytest.raises(TypeError, match="JSON-able values, got set"):
        digest_of({1, 2})


def test_a_missing_stage_says_what_to_do(store):
    with pytest.raises(MissingStageError, match="materialise images"):
        store.stage("images").require()


def test_a_version_becomes_current_and_replaces_the_old_one(store):
    stage = store.stage("images")
    publish(stage, "aaaa", "old")
    version = publish(stage, "bbbb", "new")
    assert stage.require() == version
    assert (version.folder / "answer.txt").read_text() == "new"
    assert [folder.name for folder in stage.path.glob("v-*")] == ["v-bbbb"]
    assert version.settings == {"a": 1}
    assert version.summary == {"n": 2}


def test_a_failed_version_leaves_the_old_one_and_no_rubbish(store):
    stage = store.stage("images")
    old = publish(stage, "aaaa", "old")
    with pytest.raises(RuntimeError, match="broke"):
        break_while_writing(stage.new_version("bbbb"), "half.txt")
    assert stage.require() == old
    assert sorted(path.name for path in stage.path.iterdir()) == ["current.json", "v-aaaa"]


def test_an_interrupted_resumable_version_is_found_again(store):
    stage = store.stage("segmenter", "k0030")
    with pytest.raises(RuntimeError, match="broke"):
        break_while_writing(stage.resumable_version("aaaa"), "iter_100.pth")
    with stage.resumable_version("aaaa") as folder:
        assert (folder / "iter_100.pth").read_text() == "half"
    stage.point_to("aaaa", settings={}, summary={})
    assert (stage.require().folder / "iter_100.pth").exists()


def test_partitions_and_datasets_lie_side_by_side(store, tmp_path):
    publish(store.stage("clusters", "k0030"), "aaaa", "30")
    publish(store.stage("clusters", "k0060"), "aaaa", "60")
    other = Store(root=str(tmp_path), dataset=Dataset(name="cars"))
    assert other.stage("clusters", "k0030").current() is None
    texts = [
        (store.stage("clusters", key).require().folder / "answer.txt").read_text()
        for key in ("k0030", "k0060")
    ]
    assert texts == ["30", "60"]


def test_a_version_that_lost_a_file_is_an_error_that_names_it(store):
    stage = store.stage("images")
    version = publish(stage, "aaaa", "whole")
    (version.folder / "answer.txt").write_text("wh")
    with pytest.raises(DamagedResultError, match=r"answer\.txt has 2 bytes instead of 5"):
        stage.require()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": "aaaa"}'])
def test_a_damaged_pointer_is_an_error_that_says_what_to_do(store, text):
    stage = store.stage("images")
    publish(stage, "aaaa", "whole")
    stage.pointer.write_text(text)
    with pytest.raises(DamagedResultError, match=r"current\.json is damaged: delete it"):
        stage.current()


def test_who_locks_a_stage_removes_what_dead_runs_left(store):
    stage = store.stage("features")
    for left in (".tmp-v-aaaa-17", "shards/.tmp-00001-bbbb-18"):
        (stage.path / left).mkdir(parents=True)
    (stage.path / ".unfinished-cccc").mkdir()
    with stage.locked(print):
        names = {path.name for path in stage.path.rglob("*")}
    assert names == {"shards", ".unfinished-cccc", ".lock", ".lock.holder"}


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "..", "", "/etc"])
def test_a_dataset_cannot_leave_the_store(tmp_path, name):
    with pytest.raises(ValueError, match="folder in the store"):
        Store(root=str(tmp_path), dataset=Dataset(name=name)).stage("images")


def test_a_pointer_to_a_removed_folder_counts_as_missing(store):
    stage = store.stage("images")
    stage.path.mkdir(parents=True)
    record = {"digest": "aaaa", "folder": "v-aaaa", "settings": {}, "summary": {}}
    stage.pointer.write_text(json.dumps(record))
    assert stage.current() is None


def test_atomic_text_replaces_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "deep" / "note.json"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert path.read_text() == "two"
    assert [child.name for child in path.parent.iterdir()] == ["note.json"]
