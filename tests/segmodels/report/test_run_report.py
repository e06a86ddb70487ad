"""A run without ground truth: its files and its report; the scores that are plotted."""

import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from segmodels.datasets.images import IMAGES_SCHEMA
from segmodels.evaluation.predictions import Predictions
from segmodels.formats.coco import write_results
from segmodels.formats.coco_json import Category
from segmodels.formats.masks import mask_row, mask_table
from segmodels.formats.panoptic import PanopticWriter, Segment
from segmodels.report.artifacts import RunArtifacts
from segmodels.report.comparisons import comparison_sheet, comparisons
from segmodels.report.run_report import evaluate_run, headline_scores

HEIGHT, WIDTH = 24, 32
CLUSTERS = [Category(1, "c1"), Category(2, "c2", isthing=False)]


@pytest.fixture
def artifacts(tmp_path):
    rows, masks = [], []
    found = tmp_path / "found"
    segments = np.full((HEIGHT, WIDTH), 2, dtype=np.int32)
    segments[4:12, 6:20] = 1
    with PanopticWriter(found / "panoptic.json", found / "panoptic", CLUSTERS) as writer:
        for image_id in range(1, 11):
            pixels = np.random.default_rng(image_id).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{image_id}.png")
            writer.add(image_id, f"{image_id}.png", segments, [Segment(1, 1), Segment(2, 2)])
            masks.append(mask_row(image_id, 1, segments == 1, score=1.0, source="test", round=0))
            rows.append(
                {
                    "image_id": image_id, "source": str(tmp_path), "path": f"{image_id}.png",
                    "height": HEIGHT, "width": WIDTH, "sha256": "",
                    "split": "val" if image_id > 7 else "train", "shard": 0,
                }
            )  # fmt: skip
    write_results(found / "instances.json", [])
    images, things = pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA), mask_table(masks)
    return RunArtifacts(
        images=images,
        all_images=images,
        things=things.append_column("cluster_id", pa.array([0] * 10, pa.int64())),
        discovered=things,
        predictions=Predictions(found, 1, 1),
        ground_truth=None,
    )


def test_run_without_ground_truth_has_statistics_and_pictures(artifacts, tmp_path):
    (tmp_path / "out").mkdir()
    lines = []
    settings = {"images": {"sources": ["secret.tar"], "shard_size": 25}, "segmenter": {"seed": 3}}
    result = evaluate_run(
        tmp_path / "out", artifacts, title="scenes", settings=settings, log=lines.append
    )
    names = ["mapping.arrow", "metrics.json", "metrics.txt", "per_class.arrow", "report.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result.metrics
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Learned from 7 images without any label. There is no ground truth" in page
    for text in ("images.shard_size", "segmenter.seed", "cluster 2", "1.png: 1 masks"):
        assert text in page
    assert "secret.tar" not in page
    assert page.count("<img") == 8 * 2 + 4 * 2 + 6
    assert lines[-1].startswith("scores of scenes:\n10 images predicted")
    assert headline_scores(result.metrics) == {"predictions": 0}


def test_comparisons_show_clusters_where_none_has_a_class(artifacts, tmp_path):
    mapping = pa.table({"cluster_id": pa.array([], pa.int64())})
    rows = list(comparisons(artifacts, mapping))
    assert [row.caption for row in rows][::7] == ["1.png", "10.png"]
    assert [panel.title for panel in rows[0].panels] == ["image", "prediction"]
    assert [name for _, name in rows[0].panels[1].legend] == ["cluster 2", "cluster 1"]
    assert comparison_sheet(artifacts, mapping).shape == (8 * 184 + 6, 2 * 166 + 6, 3)


def test_headline_scores_are_of_the_paper_fitted_on_the_scored_images():
    instance = {"AP": 1.0, "AP50": 2.0, "AP75": 3.0, "AR100": 4.0}
    scores = {"panoptic": {"all": {"PQ": 5.0}}, "semantic": {"mIoU": 6.0}}
    metrics = {
        "class_agnostic": {"box": instance},
        "protocols": {"u2seg-paper": {"same": scores, "disjoint": {}}, "one-to-one": {}},
    }
    expected = {"class_agnostic_box_AP50": 2.0, "class_agnostic_box_AR100": 4.0}
    assert headline_scores(metrics) == {**expected, "PQ": 5.0, "mIoU": 6.0}
