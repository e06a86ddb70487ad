"""Copies of a clustering's results outside the store."""

import dagster as dg
import pytest

from assets.evaluation.export import export_clustering
from assets.stages.manifest import DamagedResultError
from assets.stages.store import Dataset, Store


@pytest.fixture
def store(tmp_path):
    store = Store(root=str(tmp_path / "store"), dataset=Dataset(name="birds"))
    for name in ("pseudo_labels", "evaluation"):
        stage = store.stage(name, "k0003")
        with stage.new_version("aaaa") as folder:
            (folder / "file.txt").write_text(name)
        stage.point_to("aaaa", settings={}, summary={})
    return store


def test_what_is_finished_is_copied_whole(store, tmp_path):
    out = tmp_path / "out"
    assert export_clustering(store, "k0003", out) == ["pseudo_labels", "evaluation"]
    assert (out / "evaluation" / "file.txt").read_text() == "evaluation"


def test_an_existing_folder_is_never_written_over(store, tmp_path):
    with pytest.raises(dg.Failure, match="exists already"):
        export_clustering(store, "k0003", tmp_path)


def test_a_damaged_result_is_not_copied(store, tmp_path):
    (store.stage("evaluation", "k0003").require().folder / "file.txt").write_text("eval")
    with pytest.raises(DamagedResultError, match=r"file\.txt has 4 bytes instead of 10"):
        export_clustering(store, "k0003", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_clustering_says_what_to_run(store, tmp_path):
    with pytest.raises(dg.Failure, match="run the job u2seg with that key"):
        export_clustering(store, "k0800", tmp_path / "out")
    assert not (tmp_path / "out").exists()
