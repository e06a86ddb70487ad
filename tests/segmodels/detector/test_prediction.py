"""The predictions folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kernels import rle
from segmodels.detector.prediction import Segmenter, predict_panoptic
from segmodels.detector.pseudo_labels import semantic_file
from segmodels.detector.settings import (
    PredictionSettings,
    ResolvedPredictionSettings,
    TrainSettings,
)
from segmodels.detector.training import train_segmenter
from segmodels.formats.arrow import read_table
from segmodels.formats.panoptic import read_panoptic
from segmodels.formats.segment_png import png_name


@pytest.fixture(scope="module")
def learned(draw_shapes, tmp_path_factory: pytest.TempPathFactory):
    """Twelve images and a segmenter that has learned them."""
    shapes = draw_shapes(count=12, size=(96, 128), seed=1)
    work_dir = tmp_path_factory.mktemp("learned")
    settings = TrainSettings(iterations=150, batch_size=2, short_sides=(96,), long_side=128, seed=0)
    train_segmenter(shapes.images, shapes.labels, work_dir, settings)
    out = tmp_path_factory.mktemp("predictions")
    counts = predict_panoptic(read_table(shapes.images), work_dir, out)
    assert counts["images"] == 12
    assert counts["instances"] == len(json.loads((out / "instances.json").read_text()))
    return shapes, work_dir, out


def test_it_learns_its_training_images(learned, capsys) -> None:
    shapes, _, out = learned
    truth = COCO(str(shapes.labels / "instances.json"))
    scored = COCOeval(truth, truth.loadRes(str(out / "instances.json")), "segm")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    capsys.readouterr()
    assert scored.stats[1] > 0.4


def test_semantic_maps_are_learned_and_of_image_size(learned) -> None:
    shapes, _, out = learned
    agreement = []
    for image_id in range(1, 13):
        expected = np.array(Image.open(semantic_file(shapes.labels, image_id, 0)))
        found = np.array(Image.open(out / "semantic" / png_name(image_id)))
        assert found.shape == expected.shape
        agreement.append((found == expected).mean())
    assert np.mean(agreement) > 0.8


def test_panoptic_maps_are_valid_and_hold_things_and_stuff(learned) -> None:
    _, _, out = learned
    panoptic = read_panoptic(out / "panoptic.json", out / "panoptic")
    panoptic.validate()
    categories = [s.category_id for i in range(1, 13) for s in panoptic.segments(i)]
    assert set(categories) == {1, 2, 3, 4}
    assert [c.isthing for c in panoptic.categories.values()] == [True, True, False, False]


def test_results_are_sorted_within_limits_and_inside_the_image(learned) -> None:
    _, _, out = learned
    results = json.loads((out / "instances.json").read_text())
    for image_id in range(1, 13):
        scores = [r["score"] for r in results if r["image_id"] == image_id]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= 100
        assert min(scores, default=1) >= 0.05
    for result in results:
        assert result["segmentation"]["size"] == [96, 128]
        assert rle.area([result["segmentation"]["counts"].encode()], 96, 128)[0] > 0
        x, y, width, height = result["bbox"]
        assert min(x, y, width, height) >= 0
        assert x + width <= 128.01
        assert y + height <= 96.01


def test_prediction_repeats_itself_at_any_size_and_finds_nothing_gracefully(
    learned, tmp_path: Path
) -> None:
    shapes, work_dir, _ = learned
    Image.new("RGB", (333, 77), (120, 120, 120)).save(tmp_path / "grey.png")
    segmenter = Segmenter(work_dir)
    first = segmenter.predict(1, str(shapes.images.parent), "1.png")
    grey = segmenter.predict(1, str(tmp_path), "grey.png")
    again = Segmenter(work_dir).predict(1, str(shapes.images.parent), "1.png")
    assert first.instances == again.instances
    np.testing.assert_array_equal(first.semantic, again.semantic)
    assert grey.semantic.shape == (77, 333)
    strict = PredictionSettings(
        short_side=64, score_threshold=0.999999, max_detections=5, instance_confidence=1.0,
        overlap=0.5, stuff_min_area=1,
    )  # fmt: skip
    none = Segmenter(work_dir, settings=strict).predict(1, str(tmp_path), "grey.png")
    assert none.instances == []


def test_a_folder_without_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no checkpoint: train first"):
        Segmenter(tmp_path)


def test_stuff_areas_scale_with_the_image() -> None:
    settings = ResolvedPredictionSettings(
        short_side=1, long_side=1, score_threshold=0, nms_threshold=0, max_detections=1,
        instance_confidence=0, overlap=0, stuff_min_area=4096, stuff_area_short_side=800,
    )  # fmt: skip
    assert settings.min_stuff_pixels(400, 600) == 1024
    assert settings.min_stuff_pixels(1000, 800) == 4096
