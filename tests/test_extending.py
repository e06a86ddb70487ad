"""The examples of docs/extending.md, run in their order."""

import re

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from assets.stages.store import Dataset, Store, finished_folder
from pipelines.settings import ROOT
from segmodels.datasets.ground_truth import load_ground_truth
from segmodels.datasets.scan import scan_sources
from segmodels.engine.checkpoint import CheckpointMismatchError
from segmodels.formats.arrow import write_table
from segmodels.formats.masks import mask_row, mask_table

PAGE = (ROOT / "docs" / "extending.md").read_text()


def example(section):
    """What the code blocks of a section define."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    names = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, f"docs/extending.md: {section}", "exec"), names)  # noqa: S102 - our own page
    return names


def test_a_stage(tmp_path):
    store = Store(root=str(tmp_path), dataset=Dataset(name="birds"))
    things = store.stage("thing_masks")
    mask = np.ones((4, 4), bool)
    rows = [
        mask_row(image, number, mask, score=score, source="maskcut", round=0)
        for number, (image, score) in enumerate([(1, 0.9), (1, 0.4), (2, 0.8)])
    ]
    with finished_folder(things.path / "shards" / "00000-aaaa") as folder:
        write_table(mask_table(rows), folder / "masks.arrow")
    things.point_to("aaaa", settings={}, summary={"shards": {"0": "00000-aaaa"}}, folder="shards")

    stage = example("A stage")["thing_counts"]
    config = {"ops": {"thing_counts": {"config": {"min_score": 0.5}}}}
    with dg.instance_for_test() as instance:
        run = dg.materialize(
            [stage], resources={"store": store}, run_config=config, instance=instance
        )

    assert run.success
    version = store.stage("thing_counts").require()
    assert version.summary == {"images": 2, "things": 2}
    assert version.made_from == {"thing_masks": "aaaa"}


def test_a_backbone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = example("A backbone")
    mine = names["mine"]
    assert (mine.image_size, mine.tau, mine.center_keys) == (96, 0.2, True)
    assert mine.digest == names["trained"].digest
    assert names["entry"].file_name == "mine.pth"


@pytest.mark.parametrize("side", [20, 33])
def test_a_data_set(tmp_path, side):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((side, side), np.uint8)
    mask[2:9, 3:12] = 255
    Image.fromarray(np.stack([mask] * 3, axis=2)).save(tmp_path / "images" / "swan.jpg")
    Image.fromarray(mask).save(tmp_path / "masks" / "swan.png")

    sources = example("A data set")["read"](str(tmp_path))

    table = scan_sources(sources).images
    truth = load_ground_truth(sources, table)
    (image_id,) = truth.instance_image_ids
    (instance,) = truth.instances(image_id)
    assert instance.bbox == (3, 2, 9, 7)
    assert table["split"].to_pylist() == ["val"]


def test_a_trained_model(tmp_path):
    names = example("A trained model")
    whole = names["fit"](tmp_path / "whole.pt")
    assert whole == pytest.approx(2, abs=0.05)
    names["fit"](tmp_path / "parts.pt", minutes=0)
    assert names["fit"](tmp_path / "parts.pt") == whole
    with pytest.raises(CheckpointMismatchError, match="other settings"):
        names["fit"](tmp_path / "parts.pt", steps=301)
