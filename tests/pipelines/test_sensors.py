"""The sensors: new images, and runs that died."""

import json
import subprocess
import sys

import dagster as dg
import pytest
from PIL import Image

from assets.data.images import InputPaths, images
from assets.stages.runs import PROCESS_TAG, record_process
from assets.stages.store import Dataset, Store
from pipelines.definitions import defs
from pipelines.sensors import dead_runs, new_images


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (20, 20), (1, 2, 3)).save(folder / "a.png")
    return folder


@pytest.fixture
def store(tmp_path):
    return Store(root=str(tmp_path / "store"), dataset=Dataset(name="trips"))


def tick(store, cursor=None):
    """What the sensor says, and the cursor that it leaves."""
    resources = {"store": store, "dataset": store.dataset}
    with (
        dg.instance_for_test() as instance,
        dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context,
    ):
        return new_images(context), context.cursor


def test_a_dataset_without_sources_is_passed_over_with_the_reason(store):
    assert "materialise images once" in tick(store)[0].skip_message


def test_changed_files_launch_a_run_and_unchanged_ones_do_not(store, photos):
    config = {"sources": [{"images": str(photos)}]}
    with dg.instance_for_test() as instance:
        dg.materialize(
            [images],
            resources={"store": store, "inputs": InputPaths()},
            run_config={"ops": {"images": {"config": config}}},
            instance=instance,
        )
    request, first = tick(store)
    assert isinstance(request, dg.RunRequest)
    assert "no image has changed" in tick(store, first)[0].skip_message
    Image.new("RGB", (30, 20), (9, 9, 9)).save(photos / "b.png")
    request, second = tick(store, first)
    assert isinstance(request, dg.RunRequest)
    assert second != first
    (photos / "b.png").unlink()
    request, third = tick(store, second)
    assert (request.run_key, third) == (None, first)


def test_a_folder_that_went_away_is_named(store, photos):
    test_changed_files_launch_a_run_and_unchanged_ones_do_not(store, photos)
    photos.rename(photos.with_name("elsewhere"))
    assert "photos" in tick(store)[0].skip_message


def test_dead_runs_are_ended_and_named():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with dg.instance_for_test() as instance:
        job = defs.resolve_job_def("discover")
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        record_process(instance, run.run_id)
        process = json.loads(instance.get_run_by_id(run.run_id).tags[PROCESS_TAG])
        tags = {PROCESS_TAG: json.dumps(process | {"pid": child.pid})}
        instance.add_run_tags(run.run_id, tags)
        with dg.build_sensor_context(instance=instance) as context:
            assert f"{run.run_id[:8]} (discover) died" in dead_runs(context).skip_message
            assert "has its process" in dead_runs(context).skip_message
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
