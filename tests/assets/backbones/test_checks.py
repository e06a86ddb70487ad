"""The backbone's check: on a store with annotated photographs, and on one without."""

import json
import math

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from assets.backbones.checks import (
    annotated_sample,
    compared,
    dino_backbone_quality,
    dino_features_quality,
)
from assets.backbones.dino_backbone import dino_backbone
from assets.backbones.dino_features import dino_features
from assets.backbones.weights import Weights
from assets.data.images import InputPaths, images
from assets.stages.shards import ShardRunner
from assets.stages.store import Dataset, Store
from segmodels.diagnostics.backbone_quality import ClassNeighbours, InstanceQuality

SIDE, COUNT = 96, 5
CHECK = "dino_features_backbone_quality"


def write_photographs(folder, *, count=COUNT):
    """Noise with a square of one colour; returns COCO annotations of the squares."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    categories = [{"id": number, "name": f"class {number}"} for number in (1, 2)]
    document = {"images": [], "annotations": [], "categories": categories}
    for number in range(1, count + 1):
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        left, top = (int(place) for place in rng.integers(8, 40, 2))
        pixels[top : top + 48, left : left + 48] = (250, 40, 40) if number % 2 else (40, 40, 250)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        document["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE}
        )
        right, bottom = left + 48, top + 48
        document["annotations"].append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1 + number % 2,
                "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
            }
        )
    return document


def run(tmp_path, source, assets, **config):
    """Materialise assets and run the checks among them; the store, and the run."""
    store = Store(root=str(tmp_path / "store"), dataset=Dataset(name="squares"))
    with dg.instance_for_test() as instance:
        outcome = dg.materialize(
            [images, *assets],
            resources={
                "store": store,
                "inputs": InputPaths(),
                "weights": Weights(cache_folder=str(tmp_path / "cache")),
                "shards": ShardRunner(engine="serial"),
            },
            run_config={
                "ops": {"images": {"config": {"sources": [source]}}}
                | {name: {"config": values} for name, values in config.items()}
            },
            instance=instance,
            raise_on_error=False,
        )
    return store, outcome


FEATURES = {"backbone": "embedded", "image_size": 64, "device": "cpu"}


def test_the_backbone_of_the_features_is_measured_beside_the_untrained_one(tmp_path):
    document = write_photographs(tmp_path / "photos")
    (tmp_path / "instances.json").write_text(json.dumps(document))
    source = {
        "images": str(tmp_path / "photos"),
        "instances_json": str(tmp_path / "instances.json"),
    }
    store, outcome = run(
        tmp_path,
        source,
        [dino_features, dino_features_quality],
        dino_features=FEATURES,
        **{CHECK: {"images": 4}},
    )
    assert outcome.success
    (found,) = outcome.get_asset_check_evaluations()
    assert found.severity == dg.AssetCheckSeverity.WARN
    values = {name: value.value for name, value in found.metadata.items()}
    assert values["images"] == 4
    for name in ("AR3", "AR10", "AP50", "purity"):
        assert 0 <= values[name] <= 100
        assert 0 <= values[f"{name}_untrained"] <= 100
    assert values["scores"].splitlines()[0].startswith("| percent | this backbone")
    assert found.passed == (
        values["AR10"] >= values["AR10_untrained"]
        and values["purity"] >= values["purity_untrained"]
    )
    assert [one.image_id for one in annotated_sample(store, 3)] == [1, 3, 5]


def test_without_annotations_the_check_passes_and_says_that_nothing_was_measured(tmp_path):
    write_photographs(tmp_path / "photos", count=2)
    source = {"images": str(tmp_path / "photos")}
    store, outcome = run(
        tmp_path, source, [dino_features, dino_features_quality], dino_features=FEATURES
    )
    (found,) = outcome.get_asset_check_evaluations()
    assert found.passed
    assert found.metadata["images"].value == 0
    assert "Nothing was measured" in found.metadata["measured"].value
    assert annotated_sample(store, 3) == []


def test_weights_that_were_just_pretrained_are_measured_too(tmp_path):
    document = write_photographs(tmp_path / "photos", count=2)
    (tmp_path / "instances.json").write_text(json.dumps(document))
    source = {
        "images": str(tmp_path / "photos"),
        "instances_json": str(tmp_path / "instances.json"),
    }
    _, outcome = run(
        tmp_path,
        source,
        [dino_backbone, dino_backbone_quality],
        dino_backbone={"steps": 2, "batch_size": 2, "image_size": 64, "device": "cpu"},
    )
    assert outcome.success
    (found,) = outcome.get_asset_check_evaluations()
    # Two photographs of two classes: nothing has a neighbour of its class.
    assert found.metadata["images"].value == 2
    assert {"AR10", "AR10_untrained"} < set(found.metadata)
    assert not {"purity", "purity_untrained"} & set(found.metadata)
    assert "| purity | - | - |" in found.metadata["scores"].value


def scores(recall, *shares):
    neighbours = ClassNeighbours(np.array(shares), np.arange(len(shares)))
    return InstanceQuality(10.0, recall, 5.0, neighbours)


@pytest.mark.parametrize(
    ("trained", "untrained", "passed", "told"),
    [
        (scores(20, 0.5), scores(10, 0.4), True, "AR10 20.0, with random weights 10.0;"),
        (scores(20, 0.5), scores(20, 0.5), True, "purity 50.0, with random weights 50.0"),
        (scores(10, 0.5), scores(20, 0.4), False, "check the weights"),
        (scores(20, 0.3), scores(20, 0.4), False, "check the weights"),
        (scores(10, 0.3), scores(20, 0.4), False, "check the weights"),
        (scores(20, math.nan), scores(10, math.nan), True, "purity -, with random weights -"),
        (scores(10, math.nan), scores(20, math.nan), False, "check the weights"),
    ],
)
def test_a_backbone_below_its_untrained_self_is_a_warning(trained, untrained, passed, told):
    found = compared(trained, untrained, images=3)
    assert found.passed == passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert told in found.description
    assert found.description.endswith("more images") != passed
    json.dumps({name: value.value for name, value in found.metadata.items()}, allow_nan=False)
