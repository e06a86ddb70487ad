"""The images stage: what a user can do wrong ends in one sentence, before any computation."""

import json
import os
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from assets.data.images import InputPaths, images
from assets.stages.store import Dataset, Store
from segmodels.formats.arrow import read_table


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for number in range(6):
        path = folder / f"trip{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 30 + number, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def store(tmp_path):
    return Store(root=str(tmp_path / "store"), dataset=Dataset(name="trips"))


def run(store, config=None, inputs=None):
    with dg.instance_for_test() as instance:
        return dg.materialize(
            [images],
            resources={"store": store, "inputs": inputs or InputPaths()},
            run_config={"ops": {"images": {"config": config or {}}}},
            instance=instance,
        )


def failure_of(store, config=None, inputs=None):
    with pytest.raises(dg.Failure) as failure:
        run(store, config, inputs)
    assert store.stage("images").current() is None
    return failure.value.description


def source(path, **more):
    return {"sources": [{"images": str(path), **more}]}


def coco_file(path, names):
    images_list = [
        {"id": n, "file_name": name, "height": 40, "width": 30} for n, name in enumerate(names, 1)
    ]
    path.write_text(
        json.dumps(
            {"images": images_list, "annotations": [], "categories": [{"id": 1, "name": "x"}]}
        )
    )
    return str(path)


def test_a_folder_of_any_depth_becomes_a_table(store, photos):
    outcome = run(store, source(photos))
    table = read_table(store.stage("images").require().folder / "images.arrow")
    assert sorted(table["path"].to_pylist())[:2] == ["trip0/0.png", "trip0/2.png"]
    assert set(table["split"].to_pylist()) == {"train"}
    metadata = outcome.asset_materializations_for_node("images")[0].metadata
    assert metadata["dagster/row_count"].value == 6
    assert metadata["preview"].value.startswith("![preview](data:image/jpeg;base64,")


def test_the_environment_names_the_images_too(store, photos):
    run(store, inputs=InputPaths(images=str(photos)))
    assert store.stage("images").require().summary["images"] == 6


def test_the_environment_goes_before_what_is_remembered_and_the_config_before_both(
    store, photos, tmp_path
):
    one = tmp_path / "one"
    one.mkdir()
    Image.new("RGB", (20, 20), (1, 2, 3)).save(one / "a.png")
    both = os.pathsep.join([str(one), str(photos)])
    run(store, source(photos))
    run(store, inputs=InputPaths(images=both))
    assert store.stage("images").require().summary["images"] == 7
    run(store)  # remembers the folders of the environment
    assert store.stage("images").require().summary["images"] == 7
    run(store, source(photos), inputs=InputPaths(images=both))
    assert store.stage("images").require().summary["images"] == 6


def test_settings_that_failed_are_not_remembered(store, photos):
    with pytest.raises(dg.Failure, match="shard_size"):
        run(store, source(photos) | {"shard_size": -1})
    run(store, source(photos))
    assert store.stage("images").require().settings["shard_size"] == 64


def test_a_second_run_keeps_the_first_result(store, photos):
    run(store, source(photos))
    before = store.stage("images").pointer.stat().st_mtime_ns
    run(store)  # the sources are remembered
    assert store.stage("images").pointer.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"ARROW1")])
def test_a_run_repairs_a_damaged_table(store, photos, damage):
    run(store, source(photos))
    before = store.stage("images").require()
    rows = read_table(before.folder / "images.arrow").to_pylist()
    damage(before.folder / "images.arrow")
    run(store)
    after = store.stage("images").require()
    assert after == before
    assert read_table(after.folder / "images.arrow").to_pylist() == rows


def test_a_new_photograph_gets_a_new_shard(store, photos):
    run(store, source(photos) | {"shard_size": 6})
    Image.new("RGB", (33, 44), (9, 99, 199)).save(photos / "a-new-one.png")
    run(store)
    table = read_table(store.stage("images").require().folder / "images.arrow")
    shards = dict(zip(table["path"].to_pylist(), table["shard"].to_pylist(), strict=True))
    assert shards.pop("a-new-one.png") == 1
    assert set(shards.values()) == {0}


def test_broken_files_are_counted_by_reason(store, photos):
    (photos / "empty.jpg").touch()
    outcome = run(store, source(photos) | {"max_rejected_share": 0.5})
    metadata = outcome.asset_materializations_for_node("images")[0].metadata
    assert metadata["rejected_images"].value == 1
    assert metadata["rejected_by_reason"].value == {"empty_file": 1}
    rejected = read_table(store.stage("images").require().folder / "rejected.arrow")
    assert rejected["path"].to_pylist() == ["empty.jpg"]


def test_too_many_broken_files_fail_the_run(store, photos):
    (photos / "empty.jpg").touch()
    sentence = failure_of(store, source(photos))
    assert sentence.startswith(
        "1 of 7 images were rejected (1 empty_file), for example 'empty.jpg', more than "
        "max_rejected_share=0.1 allows"
    )
    path = store.stage("images").path / "rejected.arrow"
    assert str(path) in sentence
    assert read_table(path)["path"].to_pylist() == ["empty.jpg"]
    (photos / "empty.jpg").unlink()
    run(store, source(photos))
    assert not path.exists()


@pytest.mark.parametrize("by_config", [True, False])
def test_another_folder_of_the_same_name_does_not_replace_the_first(
    store, photos, tmp_path, by_config
):
    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    Image.new("RGB", (20, 20), (1, 2, 3)).save(other / "a.png")
    run(store, source(photos))
    named = {"config": source(other)} if by_config else {"inputs": InputPaths(images=str(other))}
    with pytest.raises(dg.Failure) as failure:
        run(store, **named)
    sentence = failure.value.description
    assert sentence.startswith(
        f"dataset 'trips' holds the images of {photos}, but this run names {other}"
    )
    assert "DATASET=" in sentence
    assert store.stage("images").require().summary["images"] == 6
    # The same root written otherwise, a second folder, and then the second alone are fine.
    run(store, source(photos / ".." / "photos"))
    run(store, {"sources": [{"images": str(photos)}, {"images": str(other)}]})
    assert store.stage("images").require().summary["images"] == 7
    run(store, **named)
    assert store.stage("images").require().summary["images"] == 1


def test_the_shell_says_how_many_files_were_rejected_and_why(store, photos, capfd):
    (photos / "empty.jpg").touch()
    (photos / ".DS_Store").write_bytes(b"mac")
    (photos / "0.xmp").write_text("<x/>")
    outcome = run(store, source(photos) | {"max_rejected_share": 0.5})
    said = capfd.readouterr().err
    assert "images: 6; rejected: 1 (1 empty_file); other files: 2" in said
    metadata = outcome.asset_materializations_for_node("images")[0].metadata
    assert metadata["other_files"].value == 2


def test_no_images_named(store):
    assert "set EXNIHILO_IMAGES to a folder" in failure_of(store)


def test_no_such_folder(store, tmp_path):
    assert "nowhere" in failure_of(store, source(tmp_path / "nowhere"))


def test_an_empty_folder(store, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "give a folder with images" in failure_of(store, source(tmp_path / "empty"))


def test_a_json_of_other_images(store, photos, tmp_path):
    annotations = coco_file(tmp_path / "a.json", ["trip0/0.png", "trip0/missing.png"])
    sentence = failure_of(store, source(photos, instances_json=annotations))
    assert "trip0/missing.png" in sentence


def test_a_file_name_that_leaves_the_root(store, photos, tmp_path):
    annotations = coco_file(tmp_path / "a.json", ["../secret.png"])
    assert "../secret.png" in failure_of(store, source(photos, instances_json=annotations))
