"""The pseudo-label folder: what is written is what was merged, and COCO's tools read it."""

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from segmodels.datasets.images import IMAGES_SCHEMA
from segmodels.formats.arrow import read_table
from segmodels.formats.coco import read_instances
from segmodels.formats.masks import decode_masks, group_by_image, mask_row, mask_table
from segmodels.formats.panoptic import read_panoptic
from segmodels.formats.stuff import stuff_rows, stuff_table
from segmodels.u2seg.label_export import SEGMENT_SCHEMA, with_clusters, write_pseudo_labels
from segmodels.u2seg.label_index import write_label_index
from segmodels.u2seg.labels import LabelSettings

K, S = 3, 2
SIZES = {7: (4, 6), 8: (6, 4), 9: (5, 5)}


def images_table() -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "image_id": image_id,
                "source": "/images",
                "path": f"some folder/{image_id}.jpg",
                "height": height,
                "width": width,
                "sha256": "",
                "split": "train",
                "shard": 0,
            }
            for image_id, (height, width) in SIZES.items()
        ],
        schema=IMAGES_SCHEMA,
    )


def block(image_id: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZES[image_id], dtype=bool)
    mask[rows, columns] = True
    return mask


def things_table() -> pa.Table:
    """Two overlapping things and a hidden one in image 7, one in image 8, none in image 9."""
    masks = [
        (7, 70, block(7, slice(0, 3), slice(0, 3)), 0.9),
        (7, 71, block(7, slice(0, 2), slice(0, 2)), 0.8),
        (7, 72, block(7, slice(0, 2), slice(0, 2)), 0.7),
        (8, 80, block(8, slice(4, 6), slice(0, 4)), 0.6),
    ]
    return mask_table(
        mask_row(image, instance, mask, score=score, source="maskcut", round=0)
        for image, instance, mask, score in masks
    )


def clusters_table() -> pa.Table:
    return pa.table(
        {
            "instance_id": pa.array([70, 71, 72, 80], pa.int64()),
            "cluster_id": pa.array([0, 2, 1, 2], pa.int32()),
            "distance": pa.array([0.0] * 4, pa.float32()),
        }
    )


def segments_of_stuff() -> pa.Table:
    """Stuff 0 above stuff 1 in every image."""
    rows = []
    for image_id, (height, width) in SIZES.items():
        clusters = np.zeros((height, width), dtype=np.uint8)
        clusters[height // 2 :] = 1
        rows += stuff_rows(image_id, clusters)
    return stuff_table(rows)


def write_labels(folder: Path, images: pa.Table, *tables: pa.Table, **changes) -> dict[str, int]:
    """Write one shard, number 3, and the index over it in `folder`."""
    shard = folder / "shard"
    shard.mkdir(parents=True)
    sizes = {"num_things": K, "num_stuff": S} | changes
    counts = write_pseudo_labels(shard, images, *tables, **({"settings": LabelSettings()} | sizes))
    write_label_index({3: shard}, folder, sizes["num_things"], sizes["num_stuff"])
    return counts


def export(folder: Path, chosen: LabelSettings | None = None) -> dict[str, int]:
    return write_labels(
        folder,
        images_table(),
        things_table(),
        clusters_table(),
        segments_of_stuff(),
        settings=chosen or LabelSettings(),
    )


def test_counts_and_files(tmp_path: Path):
    assert export(tmp_path) == {
        "images": 2,
        "images_without_things": 1,
        "things": 3,
        "things_hidden": 1,
        # Image 7: both stay (6 of 12 and 3 of 12 covered). Image 8: 8 of 12 of stuff 1 covered.
        "stuff_segments": 4,
        "stuff_left_out": 0,
        "thing_pixels": 9 + 8,
        "stuff_pixels": 15 + 16,
        "void_pixels": 0,
    }
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("shard", "copy"))
    shutil.rmtree(tmp_path / "shard")
    names = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    stems = {"000000000007.png", "000000000008.png"}
    assert names == {
        "segments/shard-00003.arrow",
        "instances/shard-00003.arrow",
        "clusters.json",
        "instances.json",
        "panoptic.json",
        *(f"panoptic/shard-00003/{stem}" for stem in stems),
        *(f"semantic/shard-00003/{stem}" for stem in stems),
    }


def test_segments_table_holds_the_visible_masks(tmp_path: Path):
    export(tmp_path)
    segments = read_table(tmp_path / "shard" / "segments.arrow")
    assert segments.schema == SEGMENT_SCHEMA
    rows = segments.select(["image_id", "instance_id", "area", "category_id", "is_thing"])
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        (7, 70, 5, 1, True),
        (7, 72, 4, 2, True),
        (7, -7001, 6, 4, False),
        (7, -7002, 9, 5, False),
        (8, 80, 8, 3, True),
        (8, -8001, 12, 4, False),
        (8, -8002, 4, 5, False),
    ]
    seven = decode_masks(segments.slice(0, 4))
    np.testing.assert_array_equal(seven.sum(axis=0), np.ones((4, 6)))


def test_panoptic_json_and_png_agree_with_each_other(tmp_path: Path):
    export(tmp_path)
    panoptic = read_panoptic(tmp_path / "panoptic.json", tmp_path / "panoptic")
    panoptic.validate()
    document = json.loads((tmp_path / "panoptic.json").read_text())
    assert [(c["id"], c["name"], c["isthing"]) for c in document["categories"]] == [
        (1, "cluster_0001", 1),
        (2, "cluster_0002", 1),
        (3, "cluster_0003", 1),
        (4, "stuff_0001", 0),
        (5, "stuff_0002", 0),
    ]
    for annotation in document["annotations"]:
        png = np.asarray(Image.open(tmp_path / "panoptic" / annotation["file_name"]), np.int64)
        ids = png @ [1, 256, 256**2]
        areas = {info["id"]: info["area"] for info in annotation["segments_info"]}
        values, counts = np.unique(ids, return_counts=True)
        assert {v: c for v, c in zip(values.tolist(), counts.tolist(), strict=True) if v} == areas
        assert ids.shape == SIZES[annotation["image_id"]]


def test_semantic_png_holds_things_stuff_and_void(tmp_path: Path):
    export(tmp_path, LabelSettings(stuff_cover_limit=0.5))
    seven = np.asarray(Image.open(tmp_path / "semantic" / "shard-00003" / "000000000007.png"))
    eight = np.asarray(Image.open(tmp_path / "semantic" / "shard-00003" / "000000000008.png"))
    assert seven.dtype == np.uint8
    np.testing.assert_array_equal(seven[:, 0], [0, 0, 0, 2])
    np.testing.assert_array_equal(seven[:, 5], [1, 1, 2, 2])
    # More than half of stuff 1 lies under the thing: its visible row is void.
    np.testing.assert_array_equal(eight[:, 0], [1, 1, 1, 255, 0, 0])


def test_pycocotools_and_our_reader_load_the_whole_masks(tmp_path: Path):
    export(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "instances.json")
    assert [category["id"] for category in coco.loadCats(coco.getCatIds())] == [1, 2, 3]
    assert {i["id"]: i["file_name"] for i in coco.loadImgs(coco.getImgIds())} == {
        7: "some folder/7.jpg",
        8: "some folder/8.jpg",
    }
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [a["id"] for a in annotations] == [1, 2, 3, 4]
    assert [(a["image_id"], a["category_id"], a["area"]) for a in annotations] == [
        (7, 1, 9),
        (7, 3, 4),
        (7, 2, 4),
        (8, 3, 8),
    ]
    np.testing.assert_array_equal(
        coco.annToMask(annotations[0]), block(7, slice(0, 3), slice(0, 3))
    )
    instances = read_instances(tmp_path / "instances.json")
    assert sum(len(instances.instances(image)) for image in instances.images) == 4


@given(
    seed=st.integers(0, 2**32 - 1),
    order=st.sampled_from(["box_area_descending", "score_ascending"]),
)
@settings(max_examples=15, deadline=None)
def test_random_scenes_round_trip(seed: int, order: str):
    rng = np.random.default_rng(seed)
    things, clusters, stuff = [], [], []
    for image_id, size in SIZES.items():
        for position in range(rng.integers(0, 4)):
            mask = rng.random(size) < rng.choice([0.2, 0.8])
            instance_id = image_id * 10 + position
            things.append(
                mask_row(image_id, instance_id, mask, score=rng.random(), source="maskcut", round=0)
            )
            clusters.append({"instance_id": instance_id, "cluster_id": int(rng.integers(0, K))})
        stuff += stuff_rows(image_id, rng.integers(0, S, size).astype(np.uint8))
    schema = pa.schema({"instance_id": pa.int64(), "cluster_id": pa.int32()})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = write_labels(
            folder,
            images_table(),
            mask_table(things),
            pa.Table.from_pylist(clusters, schema=schema),
            stuff_table(stuff),
            num_things=K,
            num_stuff=S,
            settings=LabelSettings(painting_order=order, keep_instance_free=True),
        )
        panoptic = read_panoptic(folder / "panoptic.json", folder / "panoptic")
        panoptic.validate()  # every id of a PNG is in the json, and the other way round
        segments = group_by_image(read_table(folder / "shard" / "segments.arrow"))
        pixels = 0
        for image_id in SIZES:
            segment_map = panoptic.segment_map(image_id)
            visible = decode_masks(segments[image_id])
            np.testing.assert_array_equal(visible.sum(axis=0), segment_map > 0)
            semantic = np.asarray(
                Image.open(folder / "semantic" / "shard-00003" / f"{image_id:012d}.png")
            )
            np.testing.assert_array_equal(semantic == 255, segment_map == 0)
            pixels += segment_map.size
        assert pixels == sum(counts[f"{kind}_pixels"] for kind in ("thing", "stuff", "void"))
        assert counts["things"] + counts["things_hidden"] == len(things)
        with contextlib.redirect_stdout(io.StringIO()):
            assert len(COCO(folder / "instances.json").anns) == len(things)


def test_images_without_things_stay_when_asked(tmp_path: Path):
    counts = export(tmp_path, LabelSettings(keep_instance_free=True))
    assert (counts["images"], counts["images_without_things"]) == (3, 0)
    nine = np.asarray(Image.open(tmp_path / "semantic" / "shard-00003" / "000000000009.png"))
    np.testing.assert_array_equal(nine[:, 0], [1, 1, 2, 2, 2])
    assert 9 in read_instances(tmp_path / "instances.json").images


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    export(tmp_path / "a")
    export(tmp_path / "b")
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_tables_may_hold_other_images(tmp_path: Path):
    write_labels(
        tmp_path,
        images_table().slice(1, 1),
        things_table(),
        clusters_table().slice(3, 1),
        segments_of_stuff(),
    )
    assert read_panoptic(tmp_path / "panoptic.json").image_ids == (8,)


def test_clusters_are_joined_by_instance_id():
    joined = with_clusters(things_table(), clusters_table())
    assert joined["cluster_id"].to_pylist() == [0, 2, 1, 2]
    with pytest.raises(ValueError, match=r"2 of 4 things have no cluster .* instance 71"):
        with_clusters(things_table(), clusters_table().filter([True, False, False, True]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_stuff": 1}, r"stuff clusters must be in \[0, 1\), got 1 in image 7"),
        ({"num_stuff": 255}, r"num_stuff must be in \[1, 254\]"),
        ({"num_things": 2}, r"cluster ids must be in \[0, 2\)"),
        ({"things": things_table().slice(0, 0)}, "loosen the filters"),
    ],
)
def test_wrong_input_is_named(tmp_path: Path, change: dict, message: str):
    tables = {
        "things": things_table(),
        "instance_clusters": clusters_table(),
        "stuff": segments_of_stuff(),
    }
    named = {name: change.pop(name, table) for name, table in tables.items()}
    with pytest.raises(ValueError, match=message):
        write_labels(tmp_path, images_table(), *named.values(), **change)
    assert not (tmp_path / "instances.json").exists()


def scaled(image_id: int, factor: int) -> np.ndarray:
    """A map of three kinds of pixels, each repeated `factor` times both ways."""
    small = np.random.default_rng(image_id).integers(0, 3, (6, 9))
    return np.kron(small, np.ones((factor, factor), int))


@pytest.mark.parametrize(("limit", "exact"), [(27, True), (9, True), (7, False)])
def test_large_images_are_merged_small_and_written_at_their_size(tmp_path: Path, limit, exact):
    """Where the working size loses nothing, the labels are those of the image's own size."""
    pixels = scaled(7, 3)
    height, width = pixels.shape
    image = images_table().slice(0, 1).to_pylist()[0] | {"height": height, "width": width}
    images = pa.Table.from_pylist([image], schema=IMAGES_SCHEMA)
    things = mask_table([mask_row(7, 70, pixels == 0, score=1, source="maskcut", round=0)])
    stuff = stuff_table(stuff_rows(7, (pixels == 2).astype(np.uint8)))
    free = LabelSettings(stuff_cover_limit=None, long_side_limit=limit)
    write_labels(tmp_path, images, things, clusters_table(), stuff, settings=free)
    panoptic = read_panoptic(tmp_path / "panoptic.json")
    panoptic.validate()
    segments = read_table(tmp_path / "shard" / "segments.arrow")
    record = json.loads((tmp_path / "panoptic.json").read_text())["annotations"][0]
    found = panoptic.segment_map(7)
    assert found.shape == (height, width)
    for info, mask in zip(record["segments_info"], decode_masks(segments), strict=True):
        rows, columns = np.nonzero(found == info["id"])
        assert np.array_equal(mask, found == info["id"])
        assert info["area"] == len(rows)
        left, top = columns.min(), rows.min()
        box = [left, top, columns.max() - left + 1, rows.max() - top + 1]
        assert info["bbox"] == box
    kinds = np.array([0, 0, 1, 2])[found]
    assert np.array_equal(kinds, pixels) == exact


def test_shards_of_any_size_give_the_same_json(tmp_path: Path):
    whole = tmp_path / "whole"
    tables = (things_table(), clusters_table(), segments_of_stuff())
    write_labels(whole, images_table(), *tables)
    shards = {}
    for position in range(3):
        shards[position] = tmp_path / f"shard-{position}"
        shards[position].mkdir()
        write_pseudo_labels(
            shards[position],
            images_table().slice(position, 1),
            *tables,
            num_things=K,
            num_stuff=S,
            settings=LabelSettings(),
        )
    write_label_index(shards, tmp_path, K, S)
    assert (tmp_path / "instances.json").read_bytes() == (whole / "instances.json").read_bytes()
    one, three = (json.loads((f / "panoptic.json").read_text()) for f in (whole, tmp_path))
    for record in [*one["annotations"], *three["annotations"]]:
        record["file_name"] = Path(record["file_name"]).name
    assert one == three
