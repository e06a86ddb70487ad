"""Reading pseudo labels and the seeded stream."""

import json
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from segmodels.detector.pseudo_labels import semantic_file
from segmodels.detector.registration import register

register()

from mmengine.registry import DefaultScope

from segmodels.detector.dataset import (
    PositionSampler,
    PseudoLabelDataset,
    SeededStream,
)
from segmodels.detector.train_config import train_pipeline


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def dataset(shapes, **changes) -> PseudoLabelDataset:
    return PseudoLabelDataset(str(shapes.images), str(shapes.labels), **changes)


def test_images_without_instances_are_dropped_unless_kept(shapes) -> None:
    assert [record["img_id"] for record in dataset(shapes)] == [1, 2, 3]
    assert len(dataset(shapes, keep_empty=True)) == 4


def test_a_split_without_labels_is_a_clear_error(shapes) -> None:
    with pytest.raises(ValueError, match=r"no image of split val .* nothing to train on"):
        dataset(shapes, splits=["val"])


def test_loading_gives_the_pseudo_labels_in_pixels(shapes) -> None:
    pipeline = train_pipeline([64], 80)[:2]
    sample = dataset(shapes, pipeline=pipeline)[0]
    content = json.loads((shapes.labels / "instances.json").read_text())
    expected = [a for a in content["annotations"] if a["image_id"] == 1]
    assert sample["gt_bboxes_labels"].tolist() == [a["category_id"] - 1 for a in expected]
    assert sample["gt_masks"].masks.sum(axis=(1, 2)).tolist() == [a["area"] for a in expected]
    for mask, box in zip(sample["gt_masks"].masks, sample["gt_bboxes"].numpy(), strict=True):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    # Things are drawn disjoint here: the semantic map is 0 exactly on them.
    np.testing.assert_array_equal(sample["gt_seg_map"] == 0, sample["gt_masks"].masks.any(axis=0))
    assert sample["img"].shape == (64, 80, 3)


def test_a_map_of_another_size_is_a_clear_error(draw_shapes) -> None:
    shapes = draw_shapes(count=1)
    Image.new("L", (10, 10)).save(semantic_file(shapes.labels, 1, 0))
    loaded = dataset(shapes, pipeline=train_pipeline([64], 80)[:2])
    with pytest.raises(ValueError, match="recompute the pseudo labels"):
        loaded[0]


def stream(shapes, seed: int = 3) -> SeededStream:
    config = {
        "type": "PseudoLabelDataset", "images_table": str(shapes.images),
        "pseudo_labels": str(shapes.labels), "pipeline": train_pipeline([48, 64, 80], 120),
    }  # fmt: skip
    return SeededStream(config, seed)


def test_a_position_is_the_same_whatever_came_before(shapes) -> None:
    forward, backward = stream(shapes), stream(shapes)
    there = [forward[position] for position in range(7)]
    np.random.seed(0)  # noqa: NPY002  (what the caller did must not matter)
    back = [backward[position] for position in reversed(range(7))][::-1]
    for a, b in zip(there, back, strict=True):
        assert a["inputs"].equal(b["inputs"])
        boxes = [sample["data_samples"].gt_instances.bboxes.tensor for sample in (a, b)]
        assert boxes[0].equal(boxes[1])
    assert len({tuple(item["inputs"].shape) for item in there}) > 1  # several scales were drawn


def test_each_epoch_has_every_image_in_another_order(shapes) -> None:
    drawn = stream(shapes)
    passes = [[drawn[3 * p + k]["data_samples"].img_id for k in range(3)] for p in range(8)]
    assert all(sorted(ids) == [1, 2, 3] for ids in passes)
    assert len({tuple(ids) for ids in passes}) > 1


def test_the_stream_leaves_global_generators_alone(shapes) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    stream(shapes)[0]
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_processes_interleave_and_resume_in_place(shapes) -> None:
    samplers = [PositionSampler(stream(shapes)) for _ in range(2)]
    for rank, sampler in enumerate(samplers):
        sampler.rank, sampler.world_size, sampler.start = rank, 2, 3
    assert [list(islice(sampler, 3)) for sampler in samplers] == [[6, 8, 10], [7, 9, 11]]
