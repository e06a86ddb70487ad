"""The whole chain on a tiny sample, by the same job that users run; then one more clustering."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import zarr
from PIL import Image
from pycocotools.coco import COCO

from assets.data.images import InputPaths
from assets.stages.shards import ShardRunner, finished_shards
from assets.stages.store import Dataset, Store
from pipelines.definitions import defs
from pipelines.settings import ROOT
from segmodels.formats.arrow import read_table
from segmodels.formats.panoptic import read_panoptic

STUFF = 4
CONFIG = {
    "images": {"sample": True, "sample_train": 8, "sample_val": 4, "shard_size": 5},
    "dino_features": {"backbone": "embedded", "image_size": 96, "batch_size": 2},
    "stuff_features": {"size": 64},
    "stuff_model": {"steps": 4, "batch_size": 4, "num_clusters": STUFF},
    "stuff_segments": {"size": 64},
    "instance_embeddings": {"crop_size": 64},
    "segmenter": {"iterations": 3, "short_sides": [96], "batch_size": 2},
    "predictions": {"short_side": 96, "score_threshold": 0.0},
}


def run_config(stages):
    return {"ops": {name: {"config": CONFIG[name]} for name in CONFIG if name in stages}}


def run_job(name, key, store, instance, config):
    return defs.resolve_job_def(name).execute_in_process(
        instance=instance,
        resources={
            "dataset": store.dataset,
            "store": store,
            "inputs": InputPaths(),
            "shards": ShardRunner(engine="serial"),
        },
        run_config=config,
        tags={"dagster/partition": key},
    )


@pytest.fixture(scope="module")
def instance():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture(scope="module")
def store(tmp_path_factory, instance):
    """A store in which the whole chain has run for 3 clusters."""
    root = tmp_path_factory.mktemp("store")
    store = Store(root=str(root), dataset=Dataset(name="tiny"))
    assert run_job("u2seg", "k0003", store, instance, run_config(CONFIG)).success
    return store


def folder_of(store, stage, key=None) -> Path:
    return store.stage(stage, key).require().folder


def images_of(store):
    table = read_table(folder_of(store, "images") / "images.arrow")
    return {row["image_id"]: row for row in table.to_pylist()}


def pointers(store):
    return {path: path.stat().st_mtime_ns for path in Path(store.root).rglob("current.json")}


def test_images_have_their_splits_and_both_orientations(store):
    rows = images_of(store).values()
    assert sorted(row["split"] for row in rows) == ["train"] * 8 + ["val"] * 4
    assert any(row["height"] > row["width"] for row in rows)
    assert any(row["height"] < row["width"] for row in rows)


def test_features_are_finite_float16_keys_of_every_image(store):
    shards = finished_shards(store.stage("dino_features").require())
    seen = []
    for folder in shards.folders.values():
        group = zarr.open_group(folder / "features.zarr", mode="r")
        assert group["keys"].dtype == np.float16
        assert group["keys"].shape[1:3] == (12, 12)
        assert np.isfinite(group["keys"][:]).all()
        seen += group["image_id"][:].tolist()
    assert sorted(seen) == sorted(images_of(store))


def test_things_come_from_training_images_alone(store):
    things = read_table(folder_of(store, "thing_masks") / "masks.arrow")
    rows = images_of(store)
    assert things.num_rows > 0
    assert {rows[image_id]["split"] for image_id in things["image_id"].to_pylist()} == {"train"}


def test_every_instance_has_one_of_the_clusters(store):
    things = read_table(folder_of(store, "thing_masks") / "masks.arrow")
    clusters = read_table(folder_of(store, "instance_clusters", "k0003") / "clusters.arrow")
    assert sorted(clusters["instance_id"].to_pylist()) == sorted(things["instance_id"].to_pylist())
    assert set(clusters["cluster_id"].to_pylist()) == {0, 1, 2}


@pytest.mark.parametrize("stage", ["pseudo_labels", "predictions"])
def test_panoptic_files_match_their_pngs_and_images(store, stage):
    folder = folder_of(store, stage, "k0003")
    panoptic = read_panoptic(folder / "panoptic.json")
    panoptic.validate()
    rows = images_of(store)
    pngs = sorted(path.stem for path in (folder / "panoptic").iterdir())
    assert pngs == sorted(f"{image_id:012d}" for image_id in panoptic.image_ids)
    for image_id in panoptic.image_ids:
        size = (rows[image_id]["height"], rows[image_id]["width"])
        assert panoptic.segment_map(image_id).shape == size
        with Image.open(folder / "semantic" / f"{image_id:012d}.png") as semantic:
            assert (semantic.height, semantic.width) == size
    assert [category.isthing for category in panoptic.categories.values()] == [True] * 3 + [
        False
    ] * STUFF


def test_pycocotools_loads_labels_and_results(store, capsys):
    labels = COCO(str(folder_of(store, "pseudo_labels", "k0003") / "instances.json"))
    assert len(labels.getCatIds()) == 3
    rows = images_of(store)
    for annotation in labels.loadAnns(labels.getAnnIds()):
        row = rows[annotation["image_id"]]
        assert labels.annToMask(annotation).shape == (row["height"], row["width"])
    results = json.loads((folder_of(store, "predictions", "k0003") / "instances.json").read_text())
    assert {row["image_id"] for row in results} <= set(rows)
    capsys.readouterr()


def test_the_model_is_an_mmengine_work_directory(store):
    folder = folder_of(store, "segmenter", "k0003")
    assert (folder / "iter_3.pth").exists()
    assert (folder / "last_checkpoint").exists()
    assert (folder / "config.py").exists()


def test_scores_report_and_baseline_are_there(store):
    folder = folder_of(store, "evaluation", "k0003")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["protocols"]) == {"u2seg-paper", "u2seg-code", "one-to-one"}
    for fits in metrics["protocols"].values():
        assert set(fits) == {"same", "disjoint"}
    assert set(metrics["maskcut_baseline"]) == {"box", "mask"}
    report = (folder / "report.html").read_text()
    assert "tiny, 3 clusters (k0003)" in report
    assert "data:image/" in report


def test_show_prints_the_table_and_the_path_of_the_report(store):
    run = subprocess.run(
        [sys.executable, "-m", "pipelines.show", "--clustering", "k0003", "--dataset", "tiny"],
        cwd=ROOT,
        env=os.environ | {"EXNIHILO_STORE": store.root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "u2seg-paper" in run.stdout
    assert f"Report: {folder_of(store, 'evaluation', 'k0003') / 'report.html'}" in run.stdout


def test_a_second_run_does_no_stage_again(store, instance):
    before = pointers(store)
    assert run_job("u2seg", "k0003", store, instance, {}).success
    after = pointers(store)
    assert after == before


def test_recluster_adds_a_partition_and_reuses_everything_before_it(store, instance):
    before = pointers(store)
    assert run_job("recluster", "k0002", store, instance, {}).success
    after = pointers(store)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} == {"k0002"}
    labels = store.stage("pseudo_labels", "k0002").require()
    assert labels.summary["num_things"] == 2
    # The new partition repeats the settings of the dataset, not the defaults.
    assert store.stage("segmenter", "k0002").require().settings["iterations"] == 3


def test_more_clusters_than_instances_fail_with_both_numbers(store, instance):
    instances = read_table(folder_of(store, "thing_masks") / "masks.arrow").num_rows
    with pytest.raises(dg.Failure) as failure:
        run_job("recluster", "k0800", store, instance, {})
    assert "800" in failure.value.description
    assert str(instances) in failure.value.description


@pytest.fixture(scope="module")
def photos(store):
    """Files of eight training scenes, as somebody's own images."""
    scenes = next((Path(store.root) / "tiny").glob("sample_scenes-*")) / "train"
    return sorted(path for path in scenes.rglob("*") if path.suffix in {".jpg", ".png"})


@pytest.fixture(scope="module")
def own(photos, tmp_path_factory, instance):
    """A store in which the whole chain has run for 2 clusters on five images without truth."""
    root = tmp_path_factory.mktemp("own")
    (root / "photos").mkdir()
    for path in photos[:5]:
        shutil.copy(path, root / "photos")
    own = Store(root=str(root), dataset=Dataset(name="own"))
    config = run_config(CONFIG)
    sources = [{"images": str(root / "photos")}]
    config["ops"]["images"] = {"config": {"sources": sources, "shard_size": 5}}
    assert run_job("u2seg", "k0002", own, instance, config).success
    return own


def test_images_without_ground_truth_get_pictures_and_say_so(own):
    folder = folder_of(own, "evaluation", "k0002")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "protocols" not in metrics
    assert metrics["statistics"]["images"] == 5
    assert "There is no ground truth" in (folder / "report.html").read_text()


def test_new_images_and_then_a_new_cluster_count(own, photos, instance):
    before = finished_shards(own.stage("stuff_segments").require()).folders
    for path in photos[5:]:
        shutil.copy(path, Path(own.root) / "photos")
    assert run_job("discover", "k0003", own, instance, {}).success
    assert run_job("recluster", "k0003", own, instance, {}).success
    things = read_table(folder_of(own, "thing_masks") / "masks.arrow")
    clusters = read_table(folder_of(own, "instance_clusters", "k0003") / "clusters.arrow")
    assert sorted(clusters["instance_id"].to_pylist()) == sorted(things["instance_id"].to_pylist())
    segments = finished_shards(own.stage("stuff_segments").require())
    assert set(segments.table("segments.arrow")["image_id"].to_pylist()) == set(images_of(own))
    assert before.items() < segments.folders.items()
