"""A whole evaluation on a small dataset with known clusters."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from kernels import rle
from segmodels.datasets.ground_truth import load_ground_truth
from segmodels.datasets.image_source import ImageSource
from segmodels.datasets.images import IMAGES_SCHEMA
from segmodels.evaluation.naming.protocol import in_mapping_half
from segmodels.evaluation.predictions import Predictions
from segmodels.evaluation.protocols.evaluate import evaluate
from segmodels.formats.coco import Result, write_instances, write_results
from segmodels.formats.coco_json import Category
from segmodels.formats.errors import InputError
from segmodels.formats.masks import mask_row, mask_table
from segmodels.formats.panoptic import PanopticWriter, Segment
from segmodels.formats.segment_png import png_name
from segmodels.report.metrics_table import metrics_table

HEIGHT, WIDTH, COUNT = 24, 32, 12
THINGS = [Category(4, "cat"), Category(9, "dog")]
STUFF = [Category(50, "grass", isthing=False), Category(70, "sky", isthing=False)]
# Clusters 1 and 2 are dogs, 3 is a cat; 4 and 5 are sky, 6 is grass; 2 and 5 never occur at first.
CLUSTER_OF_THING = {9: 1, 4: 3}
CLUSTER_OF_STUFF = {70: 1, 50: 3}
NUM_THINGS, NUM_STUFF = 3, 3
ORIGIN = {"score": 1.0, "source": "test", "round": 0}


class Scene:
    """One image: sky above, grass below, two animals, a void column at the right."""

    def __init__(self, image_id):
        random = np.random.default_rng(image_id)
        self.image_id = image_id
        self.segments = np.full((HEIGHT, WIDTH), 1, dtype=np.int32)
        self.segments[HEIGHT // 2 :] = 2
        self.categories = {1: 70, 2: 50}
        for segment_id, left in ((3, 2), (4, 16)):
            top, side = random.integers(1, 6), random.integers(6, 12)
            self.segments[top : top + side + 5, left : left + side] = segment_id
            self.categories[segment_id] = int(random.choice([4, 9]))
        self.segments[:, -1] = 0

    def things(self):
        return [(self.categories[i], self.segments == i) for i in (3, 4)]


def images_table(ids):
    rows = [
        {
            "image_id": i, "source": "/nowhere", "path": f"{i}.png", "height": HEIGHT,
            "width": WIDTH, "sha256": "", "split": "val", "shard": 0,
        }
        for i in ids
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)


def write_truth(folder, scenes):
    table = images_table([scene.image_id for scene in scenes])
    rows, classes = [], []
    for scene in scenes:
        for category, mask in scene.things():
            rows.append(mask_row(scene.image_id, len(rows) + 1, mask, **ORIGIN))
            classes.append(category)
    write_instances(folder / "instances.json", table, mask_table(rows), THINGS, classes)
    with PanopticWriter(folder / "panoptic.json", folder / "panoptic", THINGS + STUFF) as writer:
        for scene in scenes:
            segments = [Segment(i, category) for i, category in scene.categories.items()]
            writer.add(scene.image_id, f"{scene.image_id}.png", scene.segments, segments)
    return table


def truth(folder, table, *, instances=True, panoptic=True, **options):
    source = ImageSource(
        str(folder),
        str(folder / "instances.json") if instances else None,
        str(folder / "panoptic.json") if panoptic else None,
        split="val",
    )
    return load_ground_truth([source], table, **options)


def write_predictions(folder, scenes, cluster_of_thing=CLUSTER_OF_THING, thing_score=0.9):
    """Perfect shapes, clusters for classes."""
    results, clusters = [], [Category(i, f"c{i}", isthing=i <= NUM_THINGS) for i in range(1, 7)]
    (folder / "semantic").mkdir(parents=True)
    with PanopticWriter(folder / "panoptic.json", folder / "panoptic", clusters) as writer:
        for scene in scenes:
            semantic = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            segments = []
            for segment_id, category in scene.categories.items():
                if category in CLUSTER_OF_STUFF:
                    cluster = CLUSTER_OF_STUFF[category]
                    semantic[scene.segments == segment_id] = cluster
                    segments.append(Segment(segment_id, NUM_THINGS + cluster))
                    continue
                cluster = cluster_of_thing[category]
                segments.append(Segment(segment_id, cluster))
                counts = rle.encode((scene.segments == segment_id)[None])[0]
                results.append(Result(scene.image_id, cluster, thing_score, counts, HEIGHT, WIDTH))
            writer.add(scene.image_id, f"{scene.image_id}.png", scene.segments, segments)
            Image.fromarray(semantic).save(folder / "semantic" / png_name(scene.image_id))
    write_results(folder / "instances.json", results)


@pytest.fixture
def scenes():
    return [Scene(image_id) for image_id in range(1, COUNT + 1)]


def score(folder, ground_truth, table, num_things=NUM_THINGS, **options):
    predictions = Predictions(folder, num_things, NUM_STUFF)
    return evaluate(predictions, ground_truth, table, **options)


def test_perfect_predictions_score_a_hundred_under_every_protocol(tmp_path, scenes):
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes)
    result = score(tmp_path / "found", truth(tmp_path / "truth", table), table)
    assert result.metrics["not_computed"] == {}
    assert set(result.metrics["protocols"]) == {"u2seg-paper", "u2seg-code", "one-to-one"}
    for fits in result.metrics["protocols"].values():
        assert set(fits) == {"same", "disjoint"}
        for scores in fits.values():
            assert scores["box"] == dict.fromkeys(("AP", "AP50", "AP75", "AR100"), 100)
            assert scores["mask"] == scores["box"]
            assert scores["semantic"] == {"PixelAcc": 100, "mIoU": 100, "unmapped_pixels": 0}
            for part, classes in (("all", 4), ("things", 2), ("stuff", 2)):
                expected = {"PQ": 100, "SQ": 100, "RQ": 100, "classes": classes}
                assert scores["panoptic"][part] == expected
            assert scores["clusters"]["things_named"] == 2
    assert result.metrics["class_agnostic"]["mask"]["AP"] == 100
    json.dumps(result.metrics)
    assert "100.0" in metrics_table(result.metrics)


def test_tables_name_every_class_and_cluster(tmp_path, scenes):
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes)
    result = score(tmp_path / "found", truth(tmp_path / "truth", table), table)
    rows = [r for r in result.mapping.to_pylist() if r["protocol"] == "u2seg-paper"]
    same = {r["cluster_id"]: r for r in rows if r["fitted_on"] == "same"}
    names = {cluster: row["class_name"] for cluster, row in same.items()}
    assert names == {1: "dog", 2: None, 3: "cat", 4: "sky", 5: None, 6: "grass"}
    assert [same[i]["kind"] for i in (3, 4)] == ["thing", "stuff"]
    assert same[2]["votes"] == 0
    assert same[1]["votes"] == sum(c == 9 for s in scenes for c, _ in s.things())
    assert same[4]["votes"] == COUNT
    classes = result.per_class.to_pylist()
    assert len(classes) == 3 * 2 * 4
    cat, _, grass, _ = classes[:4]
    assert (cat["class_name"], cat["kind"], cat["mask_AP"], cat["PQ"]) == ("cat", "thing", 100, 100)
    assert cat["truths"] == sum(c == 4 for s in scenes for c, _ in s.things())
    assert (grass["class_id"], grass["IoU"], grass["box_AP"]) == (50, 100, None)
    assert grass["truths"] == COUNT


def test_a_disjoint_mapping_never_sees_scored_images(tmp_path, scenes):
    # In the mapping half clusters mean the opposite of what they mean in the scored half.
    table = write_truth(tmp_path / "truth", scenes)
    swapped = {4: 1, 9: 3}
    for name, fitted, scored in (
        ("opposite", swapped, CLUSTER_OF_THING),
        ("agreeing", CLUSTER_OF_THING, CLUSTER_OF_THING),
    ):
        folder = tmp_path / name
        parts = []
        for half, clusters in ((True, fitted), (False, scored)):
            part = [s for s in scenes if in_mapping_half(s.image_id) == half]
            write_predictions(folder / str(half), part, clusters)
            parts.append(json.loads((folder / str(half) / "instances.json").read_text()))
        (folder / "instances.json").write_text(json.dumps(parts[0] + parts[1]))
        metrics = score(folder, truth(tmp_path / "truth", table), table).metrics
        disjoint = metrics["protocols"]["u2seg-code"]["disjoint"]
        assert disjoint["mask"]["AP50"] == (0 if name == "opposite" else 100)
    assert metrics["images"]["disjoint_mapping"] == sum(in_mapping_half(s.image_id) for s in scenes)
    assert metrics["images"]["disjoint_scored"] == COUNT - metrics["images"]["disjoint_mapping"]
    # Those folders hold results only.
    assert set(metrics["not_computed"]) == {"semantic scores", "panoptic quality"}


def test_scored_half_does_not_change_the_disjoint_mapping(tmp_path, scenes):
    table = write_truth(tmp_path / "truth", scenes)
    mappings = []
    for name, scored in (("a", CLUSTER_OF_THING), ("b", {4: 2, 9: 2})):
        folder = tmp_path / name
        write_predictions(folder / "x", [s for s in scenes if in_mapping_half(s.image_id)])
        write_predictions(
            folder / "y", [s for s in scenes if not in_mapping_half(s.image_id)], scored
        )
        rows = [json.loads((folder / part / "instances.json").read_text()) for part in "xy"]
        (folder / "instances.json").write_text(json.dumps(rows[0] + rows[1]))
        mapping = score(folder, truth(tmp_path / "truth", table), table).mapping
        rows = mapping.to_pylist()
        mappings.append([r for r in rows if r["fitted_on"] == "disjoint"])
    assert mappings[0] == mappings[1]


def test_unsure_predictions_get_no_class_but_count_class_agnostically(tmp_path, scenes):
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes, thing_score=0.5)
    metrics = score(tmp_path / "found", truth(tmp_path / "truth", table), table).metrics
    at = {name: fits["same"] for name, fits in metrics["protocols"].items()}
    assert at["u2seg-paper"]["mask"]["AP"] == at["one-to-one"]["mask"]["AP"] == 100
    assert at["u2seg-code"]["mask"]["AP"] == 0
    assert at["u2seg-code"]["clusters"]["things_named"] == 0
    assert at["u2seg-code"]["panoptic"]["things"]["PQ"] == 0
    assert metrics["class_agnostic"]["box"]["AP50"] == 100


def test_no_predictions_score_zero(tmp_path, scenes):
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes)
    write_results(tmp_path / "found" / "instances.json", [])
    metrics = score(tmp_path / "found", truth(tmp_path / "truth", table), table).metrics
    assert metrics["class_agnostic"]["mask"]["AP"] == 0
    assert metrics["protocols"]["one-to-one"]["same"]["box"]["AR100"] == 0
    assert metrics["statistics"]["images_without_predictions"] == COUNT


@pytest.mark.parametrize("fewer", ["panoptic", "instances"])
def test_half_a_ground_truth(tmp_path, scenes, fewer):
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes)
    ground_truth = truth(tmp_path / "truth", table, **{fewer: False})
    metrics = score(tmp_path / "found", ground_truth, table).metrics
    scores = metrics["protocols"]["one-to-one"]["disjoint"]
    assert scores["mask"]["AP"] == 100
    if fewer == "panoptic":
        assert set(metrics["not_computed"]) == {"semantic scores", "panoptic quality"}
        assert "panoptic" not in scores
        assert "semantic" not in scores
    else:
        # Instances come from the thing segments.
        assert scores["panoptic"]["all"]["PQ"] == 100


def test_no_ground_truth_leaves_statistics(tmp_path, scenes):
    table = images_table([scene.image_id for scene in scenes])
    write_predictions(tmp_path / "found", scenes)
    result = score(tmp_path / "found", None, table)
    assert "protocols" not in result.metrics
    assert list(result.metrics["not_computed"]) == ["all scores"]
    assert result.metrics["statistics"]["predictions"] == 2 * COUNT
    assert result.metrics["statistics"]["thing_clusters_used"] == 2
    assert result.per_class.num_rows == result.mapping.num_rows == 0
    assert result.statistics.thing_counts.sum() == 2 * COUNT
    assert "no ground truth" in metrics_table(result.metrics)


def test_too_few_images_to_split(tmp_path):
    scenes = [Scene(1)]
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes)
    metrics = score(tmp_path / "found", truth(tmp_path / "truth", table), table).metrics
    assert set(metrics["protocols"]["one-to-one"]) == {"same"}
    assert "mappings fitted on other images" in metrics["not_computed"]


def test_images_without_ground_truth_are_not_scored(tmp_path, scenes):
    write_truth(tmp_path / "truth", scenes[:6])
    write_predictions(tmp_path / "found", scenes)
    table = images_table([scene.image_id for scene in scenes])
    metrics = score(tmp_path / "found", truth(tmp_path / "truth", table), table).metrics
    assert metrics["images"]["predicted"] == COUNT
    assert metrics["images"]["scored"] == 6
    assert metrics["class_agnostic"]["mask"]["AP"] == 100


def test_predictions_of_another_clustering_are_refused(tmp_path, scenes):
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes)
    ground_truth = truth(tmp_path / "truth", table)
    with pytest.raises(InputError, match="2 thing clusters"):
        score(tmp_path / "found", ground_truth, table, num_things=2)
    with pytest.raises(InputError, match="materialise the predictions"):
        score(tmp_path / "nowhere", ground_truth, table)


@pytest.mark.parametrize("instances", [True, False])
def test_each_map_is_read_once(tmp_path, scenes, monkeypatch, instances):
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes)
    ground_truth = truth(tmp_path / "truth", table, instances=instances)
    read, open_image = Counter(), Image.open
    monkeypatch.setattr(Image, "open", lambda path: (read.update([path]), open_image(path))[1])
    score(tmp_path / "found", ground_truth, table)
    assert set(read.values()) == {1}
    assert len(read) == 3 * COUNT


def test_maskcut_masks_are_scored_as_a_baseline(tmp_path, scenes):
    table = write_truth(tmp_path / "truth", scenes)
    write_predictions(tmp_path / "found", scenes)
    rows = [
        mask_row(scene.image_id, number, mask, **ORIGIN)
        for scene in scenes
        for number, (_, mask) in enumerate(scene.things())
    ]
    ground_truth = truth(tmp_path / "truth", table)
    elsewhere = mask_row(COUNT + 1, 0, scenes[0].things()[0][1], **ORIGIN)

    def baseline(rows):
        metrics = score(
            tmp_path / "found", ground_truth, table, maskcut_masks=mask_table(rows)
        ).metrics
        return metrics["maskcut_baseline"]

    scores = baseline([*rows, elsewhere])
    assert scores["mask"] == scores["box"] == dict.fromkeys(("AP", "AP50", "AP75", "AR100"), 100)
    assert baseline(rows[::2])["mask"]["AR100"] == pytest.approx(50)
