"""Shard work: the same bytes whatever the shard, the batch's neighbours and the thread count."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.feature_shards import (
    FeatureSettings,
    FeatureShard,
    extract_shard,
    open_features,
)
from segmodels.backbones.ref import BackboneRef
from segmodels.cutler.maskcut_shards import (
    MaskCutShard,
    MaskCutStageSettings,
    instance_id_of,
    maskcut_shard,
)
from segmodels.datasets.images import IMAGES_SCHEMA
from segmodels.formats.arrow import read_table, write_table
from segmodels.formats.decode import read_image
from segmodels.formats.masks import decode_masks, group_by_image
from segmodels.stego.crops import NUM_VIEWS
from segmodels.stego.settings import ViewSettings
from segmodels.stego.shards import (
    StoredViews,
    StuffFeatureShard,
    read_neighbours,
    stuff_feature_shard,
    write_neighbours,
)
from segmodels.u2seg.embedding_shards import EmbeddingShard, embed_shard, read_embeddings
from segmodels.u2seg.embeddings import EmbeddingSettings, embed_instances

FEATURES = FeatureSettings(backbone="embedded", image_size=64, batch_size=2, device="cpu")

BACKBONE = BackboneRef("embedded")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five photographs of noise with a bright square, portrait and landscape."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(5):
        height, width = (60, 90) if number % 2 else (90, 60)
        pixels = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
        pixels[20:45, 15:40] = (220, 180, 40)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(
            {
                "image_id": number + 1,
                "source": str(folder),
                "path": f"{number}.png",
                "height": height,
                "width": width,
                "sha256": str(number),
                "split": "train",
                "shard": 0,
            }
        )
    return pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)


def features_of(images, folder, settings=FEATURES):
    folder.mkdir()
    assert extract_shard(FeatureShard(images, settings, BACKBONE), folder) == {
        "images": len(images)
    }
    return open_features(folder)


def test_features_do_not_depend_on_shards_or_batch_neighbours(images, tmp_path):
    whole = features_of(images, tmp_path / "whole")
    parts = [
        features_of(images.slice(0, 3), tmp_path / "a"),
        features_of(images.slice(3), tmp_path / "b"),
    ]
    for name in ("keys", "cls"):
        joined = np.concatenate([np.asarray(getattr(part, name)) for part in parts])
        assert joined.tobytes() == np.asarray(getattr(whole, name)).tobytes()
    assert whole.keys.shape == (5, 8, 8, 192)
    assert whole.keys.dtype == np.float16
    assert whole.row_of(4) == 3


def test_features_do_not_depend_on_the_thread_count(images, tmp_path):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = features_of(images, tmp_path / "one")
        torch.set_num_threads(2)
        two = features_of(images, tmp_path / "two")
    finally:
        torch.set_num_threads(threads)
    assert np.asarray(one.keys).tobytes() == np.asarray(two.keys).tobytes()


def test_bfloat16_features_are_near_the_float32_ones(images, tmp_path):
    exact = features_of(images, tmp_path / "exact")
    short = features_of(images, tmp_path / "short", replace(FEATURES, precision="bfloat16"))
    difference = np.asarray(short.keys, np.float32) - np.asarray(exact.keys, np.float32)
    spread = np.asarray(exact.keys, np.float32).std()
    assert 0 < np.abs(difference).mean() < 0.03 * spread


def test_an_unknown_precision_is_refused(images, tmp_path):
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bfloat16', got 'half'"):
        features_of(images, tmp_path / "wrong", replace(FEATURES, precision="half"))


def test_a_shard_on_disk_is_the_same_bytes_twice(images, tmp_path):
    features_of(images, tmp_path / "one")
    features_of(images, tmp_path / "two")
    files = [
        sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        for name in ("one", "two")
    ]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))


def test_masks_do_not_depend_on_the_thread_count(images, tmp_path, monkeypatch):
    extract_shard(FeatureShard(images, FEATURES, BACKBONE), tmp_path)
    settings = MaskCutStageSettings().with_advice(MaskCutAdvice(64, 0.2, center_keys=True))
    contents = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        maskcut_shard(MaskCutShard(images, tmp_path, settings), tmp_path)
        contents.append((tmp_path / "masks.arrow").read_bytes())
    assert contents[0] == contents[1] == contents[2]


@pytest.fixture(scope="module")
def masks(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    extract_shard(FeatureShard(images, FEATURES, BACKBONE), folder)
    settings = MaskCutStageSettings(max_masks=2).with_advice(
        MaskCutAdvice(64, 0.2, center_keys=True)
    )
    counts = maskcut_shard(MaskCutShard(images, folder, settings), folder)
    table = read_table(folder / "masks.arrow")
    assert counts["masks"] == table.num_rows > 0
    return table


def test_masks_have_the_size_of_their_own_image(images, masks):
    sizes = {row["image_id"]: (row["height"], row["width"]) for row in images.to_pylist()}
    for row in range(masks.num_rows):
        image_id = masks["image_id"][row].as_py()
        assert decode_masks(masks.slice(row, 1))[0].shape == sizes[image_id]
    assert len(set(masks["instance_id"].to_pylist())) == masks.num_rows


def test_an_image_holds_a_bounded_number_of_instance_ids():
    assert instance_id_of(2**53 - 1, 999) < 2**63
    with pytest.raises(ValueError, match="at most 1000 masks"):
        instance_id_of(1, 1000)


def test_embeddings_join_in_the_order_of_the_shards(images, masks, tmp_path):
    settings = EmbeddingSettings(crop_size=32)
    folders = []
    for name, rows in (("a", images.slice(0, 2)), ("b", images.slice(2))):
        wanted = set(rows["image_id"].to_pylist())
        keep = pa.array([i in wanted for i in masks["image_id"].to_pylist()])
        folder = tmp_path / name
        folder.mkdir()
        write_table(masks.filter(keep), folder / "masks.arrow")
        work = EmbeddingShard(rows, folder / "masks.arrow", settings, BACKBONE)
        assert embed_shard(work, folder) == {"instances": keep.to_pylist().count(True)}
        folders.append(folder)
    vectors, ids = read_embeddings(folders)
    assert vectors.shape == (masks.num_rows, 192)
    assert ids.tolist() == masks["instance_id"].to_pylist()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_embeddings_are_those_of_each_image_alone(images, masks, tmp_path, batch_size):
    settings = EmbeddingSettings(crop_size=32, batch_size=batch_size)
    write_table(masks, tmp_path / "masks.arrow")
    embed_shard(EmbeddingShard(images, tmp_path / "masks.arrow", settings, BACKBONE), tmp_path)
    backbone, by_image = BACKBONE.load(), group_by_image(masks)
    alone = [
        embed_instances(
            read_image(row["source"], row["path"]),
            decode_masks(by_image[row["image_id"]]),
            backbone,
            EmbeddingSettings(crop_size=32),
        )
        for row in images.to_pylist()
        if row["image_id"] in by_image
    ]
    # Equal in bits on this processor; another BLAS may choose its kernel by the batch.
    np.testing.assert_allclose(read_embeddings([tmp_path])[0], np.concatenate(alone), atol=1e-5)


def test_no_instances_give_an_empty_shard(images, masks, tmp_path):
    write_table(masks.slice(0, 0), tmp_path / "masks.arrow")
    work = EmbeddingShard(images, tmp_path / "masks.arrow", EmbeddingSettings(), BACKBONE)
    assert embed_shard(work, tmp_path) == {"instances": 0}
    vectors, ids = read_embeddings([tmp_path])
    assert (len(vectors), len(ids)) == (0, 0)


def test_stored_views_read_as_one_array_over_shards(images, tmp_path):
    folders = []
    for name, rows in (("a", images.slice(0, 2)), ("b", images.slice(2))):
        folder = tmp_path / name
        folder.mkdir()
        work = StuffFeatureShard(rows, ViewSettings(size=32), BACKBONE)
        assert stuff_feature_shard(work, folder)["views"] == len(rows) * NUM_VIEWS
        folders.append(folder)
    views = StoredViews(folders)
    assert views.shape == (5 * NUM_VIEWS, 4, 4, 192)
    single = StoredViews(folders[1:])
    assert np.array_equal(views[2 * NUM_VIEWS + 3], single[3])
    assert np.allclose(np.linalg.norm(views.means(), axis=1), 1, atol=1e-5)
    write_neighbours(views, tmp_path / "neighbours.zarr")
    neighbours = read_neighbours(tmp_path / "neighbours.zarr")
    cosine = views.means() @ views.means().T - 2 * np.eye(len(views.means()))
    assert np.array_equal(neighbours[:, 0], cosine.argmax(axis=1))
