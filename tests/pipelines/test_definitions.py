"""The graph as users see it: assets, partitions, jobs, schedule; loading it stays light."""

import subprocess
import sys

import dagster as dg
import pytest
import yaml

from assets.stages.store import MissingStageError
from pipelines.definitions import defs
from pipelines.settings import ROOT

UNPARTITIONED = {
    "images": set(),
    "dino_backbone": {"images"},
    "dino_features": {"images"},
    "maskcut_masks": {"images", "dino_features"},
    "cutler_masks": {"maskcut_masks"},
    "thing_masks": {"images", "maskcut_masks", "cutler_masks"},
    "instance_embeddings": {"thing_masks", "images", "dino_features"},
    "stuff_features": {"images", "dino_features"},
    "stuff_model": {"dino_features", "stuff_features"},
    "stuff_segments": {"images", "dino_features", "stuff_model"},
}
PARTITIONED = {
    "instance_clusters": {"thing_masks", "instance_embeddings"},
    "pseudo_labels": {"images", "thing_masks", "instance_clusters", "stuff_model"}
    | {"stuff_segments"},
    "segmenter": {"images", "pseudo_labels"},
    "predictions": {"images", "segmenter"},
    "evaluation": {"images", "dino_features", "maskcut_masks", "thing_masks"}
    | {"instance_embeddings", "instance_clusters", "stuff_model"}
    | {"pseudo_labels", "segmenter", "predictions"},
}


def test_the_graph_is_the_one_that_the_docs_draw():
    graph = defs.resolve_asset_graph()
    found = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.materializable_asset_keys
    }
    assert found == UNPARTITIONED | PARTITIONED


def test_clustering_and_what_follows_has_one_partition_a_key():
    graph = defs.resolve_asset_graph()
    partitioned = {
        key.to_user_string()
        for key in graph.materializable_asset_keys
        if graph.get(key).partitions_def is not None
    }
    assert partitioned == set(PARTITIONED)


def test_jobs_schedule_and_sensor_have_their_pinned_names():
    jobs = {job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    assert jobs == {
        "u2seg",
        "discover",
        "recluster",
        "train_and_evaluate",
        "register_clusterings",
        "pretrain_backbone",
        "check_backbone",
        "export",
    }
    assert defs.resolve_schedule_def("nightly_recluster").job_name == "recluster"
    assert defs.resolve_sensor_def("new_images").job_name == "discover"
    assert defs.resolve_sensor_def("dead_runs").default_status == dg.DefaultSensorStatus.RUNNING


@pytest.mark.parametrize(
    ("job", "checked"),
    [
        ("u2seg", set()),
        ("discover", set()),
        ("recluster", set()),
        ("train_and_evaluate", set()),
        ("pretrain_backbone", {"dino_backbone_backbone_quality"}),
        ("check_backbone", {"dino_features_backbone_quality"}),
    ],
)
def test_checks_run_in_the_jobs_that_are_about_them(job, checked):
    steps = {node.name for node in defs.resolve_job_def(job).nodes}
    assert {step for step in steps if step.endswith("backbone_quality")} == checked


@pytest.mark.parametrize("name", ["sample", "folder", "coco", "imagenet"])
@pytest.mark.parametrize(
    "job",
    ["u2seg", "discover", "recluster", "train_and_evaluate", "pretrain_backbone", "check_backbone"],
)
def test_one_run_config_serves_the_whole_chain_and_each_of_its_parts(name, job):
    config = yaml.safe_load((ROOT / "pipelines/configs" / f"{name}.yaml").read_text())
    assert dg.validate_run_config(defs.resolve_job_def(job), config)


def test_settings_of_a_stage_that_does_not_exist_are_refused():
    config = {"resources": {"dataset": {"config": {"stages": {"thing_mask": {}}}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="thing_mask"):
        dg.validate_run_config(defs.resolve_job_def("u2seg"), config)


def test_reclustering_brings_what_new_images_need_up_to_date():
    stages = {node.name for node in defs.resolve_job_def("recluster").nodes}
    assert {"instance_embeddings", "stuff_features", "stuff_segments"} <= stages


def test_the_store_follows_the_dataset_that_a_run_config_names(tmp_path):
    config = {
        "resources": {"dataset": {"config": {"name": "elsewhere"}}},
        "ops": {
            "copy_results": {
                "config": {"clustering": "k0300", "destination": str(tmp_path / "out")}
            }
        },
    }
    with pytest.raises(dg.Failure, match="dataset 'elsewhere' has no results for k0300"):
        defs.resolve_job_def("export").execute_in_process(run_config=config)


def test_the_backbones_check_alone_says_what_it_needs_first():
    config = {"resources": {"dataset": {"config": {"name": "elsewhere"}}}}
    with pytest.raises(MissingStageError, match="materialise dino_features"):
        defs.resolve_job_def("check_backbone").execute_in_process(run_config=config)


def test_a_wrong_config_key_is_refused_before_anything_runs():
    config = {"ops": {"dino_features": {"config": {"backbonne": "embedded"}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="backbonne"):
        dg.validate_run_config(defs.resolve_job_def("u2seg"), config)


def test_loading_the_graph_loads_no_heavy_library():
    code = (
        "import sys, pipelines.definitions; "
        "print(sorted({'torch', 'cupy', 'faiss', 'mmdet', 'mmengine'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
