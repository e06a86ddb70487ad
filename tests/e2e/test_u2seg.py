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
from scipy.optimize import linear_sum_assignment

from assets.backbones.dino_features import dino_features
from assets.backbones.weights import Weights
from assets.data.images import InputPaths, images
from assets.masks.maskcut_masks import maskcut_masks
from assets.stages.shards import ShardRunner, finished_shards, reduced_folder
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


def thing_table(store):
    return finished_shards(store.stage("thing_masks").require()).table("masks.arrow")


def label_folder(store):
    return reduced_folder(store.stage("pseudo_labels", "k0003").require())


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
    things = thing_table(store)
    rows = images_of(store)
    assert things.num_rows > 0
    assert {rows[image_id]["split"] for image_id in things["image_id"].to_pylist()} == {"train"}


def test_every_instance_has_one_of_the_clusters(store):
    things = thing_table(store)
    clusters = read_table(folder_of(store, "instance_clusters", "k0003") / "clusters.arrow")
    assert sorted(clusters["instance_id"].to_pylist()) == sorted(things["instance_id"].to_pylist())
    assert set(clusters["cluster_id"].to_pylist()) == {0, 1, 2}


@pytest.mark.parametrize("stage", ["pseudo_labels", "predictions"])
def test_panoptic_files_match_their_pngs_and_images(store, stage):
    folder = label_folder(store) if stage == "pseudo_labels" else folder_of(store, stage, "k0003")
    panoptic = read_panoptic(folder / "panoptic.json")
    panoptic.validate()
    rows = images_of(store)
    found = [*folder.glob("semantic/*.png"), *folder.glob("semantic/*/*.png")]
    semantics = {path.name: path for path in found}
    pngs = sorted(Path(name).stem for name in semantics)
    assert pngs == sorted(f"{image_id:012d}" for image_id in panoptic.image_ids)
    for image_id in panoptic.image_ids:
        size = (rows[image_id]["height"], rows[image_id]["width"])
        assert panoptic.segment_map(image_id).shape == size
        with Image.open(semantics[f"{image_id:012d}.png"]) as semantic:
            assert (semantic.height, semantic.width) == size
    assert [category.isthing for category in panoptic.categories.values()] == [True] * 3 + [
        False
    ] * STUFF


def test_pycocotools_loads_labels_and_results(store, capsys):
    labels = COCO(str(label_folder(store) / "instances.json"))
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


def test_the_baseline_has_the_scores_of_this_sample(store):
    """MaskCut is deterministic; the ranges leave room for another processor's rounding."""
    metrics = json.loads((folder_of(store, "evaluation", "k0003") / "metrics.json").read_text())
    baseline = metrics["maskcut_baseline"]
    assert baseline["box"]["AP50"] == pytest.approx(56.3, abs=3)
    assert baseline["mask"]["AP50"] == pytest.approx(56.3, abs=3)
    assert baseline["box"]["AR100"] == pytest.approx(35.0, abs=3)
    assert baseline["mask"]["AR100"] == pytest.approx(26.25, abs=3)


def test_things_and_clusters_have_the_sizes_of_this_sample(store):
    things = thing_table(store)
    clusters = read_table(folder_of(store, "instance_clusters", "k0003") / "clusters.arrow")
    assert things["image_id"].to_pylist() == [1, 2, 4, 4, 5, 6, 7, 8]
    areas = [8332, 20178, 5433, 4645, 8539, 26280, 13779, 34057]
    assert things["area"].to_pylist() == pytest.approx(areas, rel=0.05)
    assert sorted(np.bincount(clusters["cluster_id"].to_numpy())) == [1, 3, 4]


def truth_of(store, split):
    scenes = next((Path(store.root) / "tiny").glob("sample_scenes-*"))
    return read_panoptic(scenes / f"panoptic_{split}.json")


def categories_of(panoptic, image_id):
    """(H, W) category ids of a panoptic file, 0 = void."""
    segments = panoptic.segments(image_id)
    lookup = np.zeros(1 + max(segment.id for segment in segments), int)
    lookup[[segment.id for segment in segments]] = [segment.category_id for segment in segments]
    return lookup[panoptic.segment_map(image_id)]


def test_pseudo_labels_agree_with_the_truth_of_their_images(store):
    """Clusters are assigned to classes one to one, here by a solver of the test's own."""
    labels = read_panoptic(label_folder(store) / "panoptic.json")
    truth = truth_of(store, "train")
    votes = np.zeros((len(labels.categories) + 1, len(truth.categories) + 1), int)
    for image_id in labels.image_ids:
        pair = categories_of(labels, image_id), categories_of(truth, image_id)
        np.add.at(votes, pair, 1)
    votes = votes[1:, 1:]
    rows, columns = linear_sum_assignment(votes, maximize=True)
    matched = votes[rows, columns]
    accuracy = matched.sum() / votes.sum()
    unions = votes[rows].sum(axis=1) + votes[:, columns].sum(axis=0) - matched
    mean_iou = (matched / np.maximum(unions, 1)).sum() / (votes.sum(axis=0) > 0).sum()
    assert accuracy > 0.45
    assert mean_iou > 0.13
    # Pixels of thing clusters lie on true things.
    is_thing = [category.isthing for category in truth.categories.values()]
    assert votes[:3][:, is_thing].sum() > 0.7 * votes[:3].sum()


def test_pixel_accuracy_is_that_of_the_files(store):
    """The score, counted again from the maps and the mapping that users get."""
    truth = truth_of(store, "val")
    folder = folder_of(store, "evaluation", "k0003")
    mapping = [
        row
        for row in read_table(folder / "mapping.arrow").to_pylist()
        if (row["protocol"], row["fitted_on"], row["kind"]) == ("one-to-one", "same", "stuff")
    ]
    class_of = np.array([0, *(row["class_id"] or -1 for row in mapping)])
    right = known = 0
    for image_id in truth.image_ids:
        png = folder_of(store, "predictions", "k0003") / "semantic" / f"{image_id:012d}.png"
        with Image.open(png) as semantic:
            predicted = class_of[np.asarray(semantic)]
        true = categories_of(truth, image_id)
        is_void = true == 0
        thing_ids = [number for number, one in truth.categories.items() if one.isthing]
        true[np.isin(true, thing_ids)] = 0
        right += ((predicted == true) & ~is_void).sum()
        known += (~is_void).sum()
    metrics = json.loads((folder / "metrics.json").read_text())
    scores = metrics["protocols"]["one-to-one"]["same"]["semantic"]
    assert scores["PixelAcc"] == pytest.approx(100 * right / known)


def test_worker_processes_store_the_bytes_of_one_process(store, tmp_path):
    """Features and masks of real images, by two workers."""
    other = Store(root=str(tmp_path), dataset=Dataset(name="tiny"))
    shutil.copytree(store.stage("images").path, other.stage("images").path)
    result = dg.materialize(
        [images, dino_features, maskcut_masks],
        selection=["dino_features", "maskcut_masks"],
        resources={
            "store": other,
            "dataset": other.dataset,
            "inputs": InputPaths(),
            "weights": Weights(cache_folder=str(tmp_path)),
            "shards": ShardRunner(engine="processes", workers=2),
        },
        run_config=run_config({"dino_features"}),
    )
    assert result.success
    for stage in ("dino_features", "maskcut_masks"):
        assert shard_bytes(other, stage) == shard_bytes(store, stage)


def shard_bytes(store, stage):
    """The files of a stage's shards, by shard and name."""
    folders = finished_shards(store.stage(stage).require()).folders
    files = {
        (shard, str(path.relative_to(folder))): path.read_bytes()
        for shard, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert len({shard for shard, _ in files}) == 3
    return files


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
    instances = thing_table(store).num_rows
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
    things = thing_table(own)
    clusters = read_table(folder_of(own, "instance_clusters", "k0003") / "clusters.arrow")
    assert sorted(clusters["instance_id"].to_pylist()) == sorted(things["instance_id"].to_pylist())
    segments = finished_shards(own.stage("stuff_segments").require())
    assert set(segments.table("segments.arrow")["image_id"].to_pylist()) == set(images_of(own))
    assert before.items() < segments.folders.items()
