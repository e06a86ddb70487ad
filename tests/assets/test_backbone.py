"""Pre-training as a stage: weights that the loader takes, from the dataset's own images."""

import dagster as dg
import numpy as np
from PIL import Image

from assets.backbone import WEIGHTS_FILE, dino_backbone
from assets.images import InputPaths, images
from assets.store import Dataset, Store
from segmodels.dino import load_backbone


def test_a_short_pretraining_gives_weights_that_load(tmp_path):
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        pixels = rng.integers(0, 255, (120, 130, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    store = Store(root=str(tmp_path / "store"), dataset=Dataset(name="noise"))
    config = {
        "images": {"config": {"sources": [{"images": str(photos)}]}},
        "dino_backbone": {
            "config": {"steps": 2, "batch_size": 2, "image_size": 64, "tau": 0.3, "device": "cpu"}
        },
    }
    with dg.instance_for_test() as instance:
        outcome = dg.materialize(
            [images, dino_backbone],
            resources={"store": store, "inputs": InputPaths()},
            run_config={"ops": config},
            instance=instance,
        )
    assert outcome.success
    folder = store.stage("dino_backbone").require().folder
    backbone = load_backbone(folder / WEIGHTS_FILE)
    assert (backbone.image_size, backbone.tau, backbone.center_keys) == (64, 0.3, False)
    assert not list(folder.glob("photos-*"))
