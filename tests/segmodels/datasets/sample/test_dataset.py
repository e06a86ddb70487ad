"""The written sample: exact truth, COCO form, the same bytes for the same seed, apart splits."""

import hashlib
import json
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segmodels.datasets.readers import READERS
from segmodels.datasets.sample.catalogue import STUFF, THINGS, categories, exemplars
from segmodels.datasets.sample.dataset import RECIPE, panoptic_truth, scenes, write_sample
from segmodels.formats.coco import read_instances
from segmodels.formats.panoptic import read_panoptic
from segmodels.formats.segment_png import rgb_to_id

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "written"
    write_sample(folder, train=14, val=8, seed=3)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def load(folder: Path, kind: str, split: str):
    return json.loads((folder / f"{kind}_{split}.json").read_text())


def test_same_arguments_give_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        write_sample(tmp_path / name, train=2, val=1, seed=seed)
    one, two, three = (digests(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one["train/000000000001.jpg"] != three["train/000000000001.jpg"]


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(sample, tmp_path):
    write_sample(tmp_path / "small", train=2, val=1, seed=3)
    larger = digests(sample)
    for name, digest in digests(tmp_path / "small").items():
        if name.endswith((".jpg", ".png")):
            assert larger[name] == digest


def test_at_least_six_thing_and_five_stuff_classes_are_in_both_splits(sample):
    assert len(THINGS) >= 6
    assert len(STUFF) >= 5
    for split in SPLITS:
        truth = read_panoptic(sample / f"panoptic_{split}.json", sample / f"panoptic_{split}")
        seen = {segment.category_id for i in truth.images for segment in truth.segments(i)}
        assert seen == {category.id for category in categories()}


@pytest.mark.parametrize("split", SPLITS)
def test_every_png_id_is_in_the_json_and_back_with_its_area_and_box(sample, split):
    document = load(sample, "panoptic", split)
    assert len(document["annotations"]) == len(document["images"])
    for record in document["annotations"]:
        ids = rgb_to_id(np.asarray(Image.open(sample / f"panoptic_{split}" / record["file_name"])))
        assert set(np.unique(ids)) == {info["id"] for info in record["segments_info"]}
        for info in record["segments_info"]:
            rows, columns = np.nonzero(ids == info["id"])
            assert info["area"] == len(rows) > 0
            assert info["bbox"] == [
                columns.min(),
                rows.min(),
                np.ptp(columns) + 1,
                np.ptp(rows) + 1,
            ]


@pytest.mark.parametrize("split", SPLITS)
def test_thing_segments_of_the_panoptic_map_are_the_instance_masks(sample, split):
    instances = load(sample, "instances", split)
    panoptic = {
        record["image_id"]: record for record in load(sample, "panoptic", split)["annotations"]
    }
    by_image: dict[int, list] = {}
    for annotation in instances["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    assert set(by_image) == set(panoptic)
    for image_id, record in panoptic.items():
        ids = rgb_to_id(np.asarray(Image.open(sample / f"panoptic_{split}" / record["file_name"])))
        things = [info for info in record["segments_info"] if info["category_id"] <= len(THINGS)]
        assert len(things) == len(by_image[image_id])
        for info, annotation in zip(things, by_image[image_id], strict=True):
            mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
            np.testing.assert_array_equal(mask, ids == info["id"])
            assert info["category_id"] == annotation["category_id"]
            assert annotation["area"] == mask.sum() > 0
            assert annotation["bbox"] == info["bbox"]


@pytest.mark.parametrize("split", SPLITS)
def test_pycocotools_and_our_readers_load_it(sample, split, capsys):
    coco = COCO(str(sample / f"instances_{split}.json"))
    capsys.readouterr()
    ours = read_instances(sample / f"instances_{split}.json")
    assert sum(len(ours.instances(image)) for image in ours.images) == len(coco.getAnnIds())
    assert {category.name for category in ours.categories.values()} == set(THINGS)
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(sample / split / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            assert coco.annToMask(annotation).sum() == annotation["area"]


def test_no_exemplar_and_no_image_id_is_in_both_splits(sample):
    names = {
        split: {entry["exemplar"] for entry in load(sample, "instances", split)["annotations"]}
        for split in SPLITS
    }
    assert not names["train"] & names["val"]
    for split in SPLITS:
        known = {one.name for members in exemplars(split).values() for one in members}
        assert names[split] <= known
    ids = [image["id"] for split in SPLITS for image in load(sample, "instances", split)["images"]]
    assert len(ids) == len(set(ids)) == 22


def test_classes_are_shown_about_equally_often(sample):
    shown = Counter(
        entry["category_id"] for entry in load(sample, "instances", "train")["annotations"]
    )
    assert max(shown.values()) - min(shown.values()) <= 2


def test_portrait_and_landscape_sizes_are_mixed(sample):
    sizes = [(i["height"], i["width"]) for i in load(sample, "instances", "train")["images"]]
    assert {height > width for height, width in sizes} == {True, False}
    assert all(240 <= side <= 320 for size in sizes for side in size)


def test_the_reader_gives_images_and_truth_of_both_splits(tmp_path):
    messages = []
    sources = READERS["sample"](str(tmp_path), train=2, val=1, log=messages.append)
    folder = tmp_path / f"sample_scenes-{RECIPE}-2-1"
    assert messages == [f"composing the embedded sample in {folder}"]
    assert Path(sources[0].images) == folder / "train"
    assert [source.split for source in sources] == list(SPLITS)
    for source in sources:
        for path in (
            source.images,
            source.instances_json,
            source.panoptic_json,
            source.panoptic_folder,
        ):
            assert path is not None
            assert Path(path).exists()


def test_a_finished_sample_is_kept_and_anything_else_is_not_overwritten(sample, tmp_path):
    before = digests(sample)
    write_sample(sample, train=14, val=8, seed=3)
    assert digests(sample) == before
    with pytest.raises(FileExistsError, match="remove it or name another folder"):
        write_sample(sample, train=14, val=8, seed=4)
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="remove it or name another folder"):
        write_sample(tmp_path / "mine", train=1, val=1)


def test_an_interrupted_run_leaves_nothing_behind(tmp_path):
    def stop(message: str) -> None:
        raise KeyboardInterrupt(message)

    with pytest.raises(KeyboardInterrupt, match="10 of 10"):
        write_sample(tmp_path / "sample", train=10, val=1, log=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("numbers", [{"train": 0}, {"val": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(tmp_path, numbers):
    with pytest.raises(ValueError, match="must be at least"):
        write_sample(tmp_path / "sample", **numbers)


def test_no_network_is_used(tmp_path, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the sample must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    exemplars.cache_clear()
    write_sample(tmp_path / "sample", train=1, val=1)


def test_masks_of_a_scene_are_disjoint_and_stuff_fills_the_rest():
    for scene in scenes("val", 4, seed=11):
        covered = np.sum([thing.mask for thing in scene.things], axis=0)
        assert covered.max() == 1
        segment_map, segments = panoptic_truth(scene)
        assert (segment_map > 0).all()
        stuff_ids = [s.id for s in segments if s.category_id > len(THINGS)]
        np.testing.assert_array_equal(np.isin(segment_map, stuff_ids), covered == 0)
        for thing in scene.things:
            assert thing.mask.mean() > 0.015
