"""The features stage with official weights that a user has put into the cache."""

import hashlib
from dataclasses import replace

import dagster as dg
import numpy as np
import pytest
import torch
from PIL import Image

from assets.backbones.dino_features import dino_features
from assets.backbones.weights import (
    Weights,
    dataset_backbone,
    maskcut_advice,
    stuff_backbone,
)
from assets.data.images import InputPaths, images
from assets.stages.shards import ShardRunner
from assets.stages.store import Dataset, Store
from segmodels.backbones import load_backbone
from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.ref import BackboneRef
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.backbones.weights import weights_digest

SHAPE = ViTShape(patch_size=8, dim=64, depth=1, num_heads=1, grid=4, hidden_dim=64)


@pytest.fixture
def state(tmp_path):
    """A small state in the official layout, in the cache under the official file's name."""
    model = VisionTransformer(SHAPE)
    model.initialise(torch.Generator().manual_seed(0))
    (tmp_path / "cache").mkdir()
    torch.save(model.state_dict(), tmp_path / "cache" / "dino_vitbase8_pretrain.pth")
    return model.state_dict()


def features_of(store):
    return store.stage("dino_features").require()


def materialise(tmp_path, backbone):
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "one.png")
    store = Store(root=str(tmp_path / "store"), dataset=Dataset(name="one"))
    config = {
        "images": {"config": {"sources": [{"images": str(photos)}]}},
        "dino_features": {"config": {"backbone": backbone, "image_size": 32, "device": "cpu"}},
    }
    with dg.instance_for_test() as instance:
        outcome = dg.materialize(
            [images, dino_features],
            resources={
                "store": store,
                "inputs": InputPaths(),
                "weights": Weights(cache_folder=str(tmp_path / "cache")),
                "shards": ShardRunner(engine="serial"),
            },
            run_config={"ops": config},
            instance=instance,
            raise_on_error=False,
        )
    return store, outcome


def test_official_weights_in_the_cache_are_used(state, tmp_path):
    content = (tmp_path / "cache" / "dino_vitbase8_pretrain.pth").read_bytes()
    name = f"dino_vitb8@sha256:{hashlib.sha256(content).hexdigest()}"
    store, outcome = materialise(tmp_path, name)
    assert outcome.success
    weights = Weights(cache_folder=str(tmp_path / "cache"))
    own = dataset_backbone(features_of(store), weights)
    assert own == BackboneRef(name, "cpu", tmp_path / "cache", weights_digest(state))
    # What the weights recommend, at the size of the features.
    assert maskcut_advice(features_of(store)) == MaskCutAdvice(32, 0.15, center_keys=False)
    assert stuff_backbone(features_of(store), weights, print) == own


def test_stuff_is_learned_from_the_embedded_weights_companion(tmp_path):
    store, outcome = materialise(tmp_path, "embedded")
    assert outcome.success
    weights = Weights(cache_folder=str(tmp_path / "cache"))
    own = dataset_backbone(features_of(store), weights)
    chosen = stuff_backbone(features_of(store), weights, print)
    companion = load_backbone("embedded_dino")
    assert own.digest == load_backbone("embedded").digest != companion.digest
    assert chosen == replace(own, name="embedded_dino", digest=companion.digest)


@pytest.mark.usefixtures("state")
def test_weights_with_another_hash_end_the_run_with_a_sentence(tmp_path):
    _, outcome = materialise(tmp_path, f"dino_vitb8@sha256:{'0' * 64}")
    failure = outcome.failure_data_for_node("dino_features")
    assert "correct the hash after @sha256:" in failure.error.cause.message


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        ("dino_vits", "unknown backbone 'dino_vits': give one of embedded, embedded_dino,"),
        ("dino_resnet50", "dino_resnet50 is a ResNet and has no attention keys"),
        ("dino_vitb8@sha256:12", "after @sha256: come the 64 hexadecimal digits"),
    ],
)
def test_a_wrong_name_ends_the_run_with_a_sentence(tmp_path, backbone, sentence):
    _, outcome = materialise(tmp_path, backbone)
    failure = outcome.failure_data_for_node("dino_features")
    assert sentence in failure.error.cause.message
