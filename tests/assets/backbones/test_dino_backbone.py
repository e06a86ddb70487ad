"""Pre-training as a stage: weights that the loader takes, from the dataset's own images."""

import dagster as dg
import numpy as np
import pytest
import torch
from PIL import Image

from assets.backbones.dino_backbone import (
    ATTENTION_FILE,
    WEIGHTS_FILE,
    _curve_points,
    dino_backbone,
)
from assets.backbones.weights import Weights
from assets.data.images import InputPaths, images
from assets.stages.store import Dataset, Store
from segmodels.backbones import load_backbone
from segmodels.backbones.file_digests import file_sha256
from segmodels.backbones.registry import REGISTRY
from segmodels.backbones.vit import VisionTransformer, ViTShape


def materialise(tmp_path, **config):
    """Pre-train on four images of noise; the store, and the run."""
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        pixels = rng.integers(0, 255, (120, 130, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    store = Store(root=str(tmp_path / "store"), dataset=Dataset(name="noise"))
    given = {"steps": 2, "batch_size": 2, "image_size": 64, "tau": 0.3, "device": "cpu"}
    with dg.instance_for_test() as instance:
        outcome = dg.materialize(
            [images, dino_backbone],
            resources={
                "store": store,
                "inputs": InputPaths(),
                "weights": Weights(cache_folder=str(tmp_path / "cache")),
            },
            run_config={
                "ops": {
                    "images": {"config": {"sources": [{"images": str(photos)}]}},
                    "dino_backbone": {"config": given | config},
                }
            },
            instance=instance,
            raise_on_error=False,
        )
    return store, outcome


def test_a_short_pretraining_gives_weights_that_load(tmp_path):
    store, outcome = materialise(tmp_path)
    assert outcome.success
    folder = store.stage("dino_backbone").require().folder
    backbone = load_backbone(folder / WEIGHTS_FILE)
    assert (backbone.image_size, backbone.tau, backbone.center_keys) == (64, 0.3, True)
    assert not list(folder.glob("photos-*"))

    (event,) = outcome.asset_materializations_for_node("dino_backbone")
    shown = {name: value.value for name, value in event.metadata.items()}
    for name, columns in (
        ("loss_curve", "| step | loss |"),
        ("collapse_curve", "| step | sharpness | spread | rank |"),
    ):
        *_, header, _, last = shown[name].splitlines()
        assert header == columns
        step, *numbers = [float(cell) for cell in last.strip("|").split("|")]
        assert step == 2
        assert np.isfinite(numbers).all()
    assert shown["attention"].startswith("![preview](data:image/jpeg;base64,")
    # Four photographs, each with the three heads' maps.
    panel = np.asarray(Image.open(folder / ATTENTION_FILE))
    assert panel.shape == (4 * (160 + 18 + 6) + 6, 4 * (160 + 6) + 6, 3)


def test_backbones_that_a_run_builds_on_are_taken_from_the_cache_of_weights(tmp_path):
    model = VisionTransformer(ViTShape(16, 32, depth=1, num_heads=1, grid=4, hidden_dim=32))
    model.initialise(torch.Generator().manual_seed(0))
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / REGISTRY["dino_vits16"].file_name
    torch.save(model.state_dict(), path)
    name = f"dino_vits16@sha256:{file_sha256(path)}"
    store, outcome = materialise(tmp_path, start="embedded", objects=name, steps=1)
    assert outcome.success
    assert store.stage("dino_backbone").require().settings["objects"] == name


@pytest.mark.parametrize("role", ["start", "objects"])
def test_a_wrong_backbone_to_build_on_ends_the_run_with_a_sentence(tmp_path, role):
    _, outcome = materialise(tmp_path, **{role: "dino_vitb9"})
    failure = outcome.failure_data_for_node("dino_backbone")
    assert "unknown backbone 'dino_vitb9': give one of" in failure.error.cause.message


def test_a_repeated_step_is_one_point_of_the_curve():
    lines = [
        {"step": step, "loss": loss, "collapse": {"sharpness": 0.5, "spread": 0.5, "rank": 9.0}}
        for step, loss in ((19, 1.0), (39, 2.0), (39, 3.0), (59, 4.0))
    ]
    points = _curve_points(lines)
    assert [(point["step"], point["loss"]) for point in points] == [(20, 1), (40, 3), (60, 4)]
    many = [{**lines[0], "step": step} for step in range(1000)]
    thinned = [point["step"] for point in _curve_points(many)]
    assert len(thinned) == 200
    assert (thinned[0], thinned[-1]) == (1, 1000)
