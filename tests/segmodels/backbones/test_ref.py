"""References to backbones, and names taken apart."""

import pickle
from pathlib import Path

import pytest
import torch

from segmodels.backbones import load_backbone
from segmodels.backbones.file_digests import WeightsMismatchError, file_sha256
from segmodels.backbones.ref import BackboneRef
from segmodels.backbones.registry import (
    REGISTRY,
    BackboneName,
    UnknownBackboneError,
    stuff_name,
)
from segmodels.backbones.vit import VisionTransformer, ViTShape

HASH = "0123456789abcdef" * 4


def test_a_name_is_taken_apart() -> None:
    assert BackboneName.parse("dino_vitb8") == BackboneName("dino_vitb8")
    assert BackboneName.parse(f"dino_vitb8@sha256:{HASH.upper()}") == BackboneName(
        "dino_vitb8", HASH
    )
    path = BackboneName.parse(Path("some@folder/a.pth"))
    assert path == BackboneName("some@folder/a.pth", None)
    with pytest.raises(UnknownBackboneError, match="64 hexadecimal digits"):
        BackboneName.parse("dino_vitb8@sha256:12")


def test_a_hash_after_the_name_does_not_change_where_stuff_is_learned_from() -> None:
    assert stuff_name(f"embedded@sha256:{HASH}") == stuff_name("embedded") == "embedded_dino"
    assert stuff_name(f"dino_vitb8@sha256:{HASH}") == f"dino_vitb8@sha256:{HASH}"


def test_a_reference_loads_once_a_process() -> None:
    ref = BackboneRef("embedded", digest=load_backbone("embedded").digest)
    assert pickle.loads(pickle.dumps(ref)) == ref
    backbone = ref.load()
    assert backbone.name == "embedded"
    assert backbone is pickle.loads(pickle.dumps(ref)).load() is BackboneRef("embedded").load()


def test_weights_with_another_digest_are_refused() -> None:
    with pytest.raises(WeightsMismatchError, match="have changed since the features"):
        BackboneRef("embedded", digest=HASH).load()


def test_a_reference_takes_the_cache_and_the_hash(tmp_path: Path) -> None:
    shape = ViTShape(patch_size=8, dim=16, depth=1, num_heads=2, grid=2, hidden_dim=16)
    path = tmp_path / REGISTRY["dino_vits8"].file_name
    torch.save(VisionTransformer(shape).state_dict(), path)
    ref = BackboneRef(f"dino_vits8@sha256:{file_sha256(path)}", cache_folder=tmp_path)
    assert ref.load().dim == 16
    with pytest.raises(WeightsMismatchError, match="was asked for"):
        BackboneRef(f"dino_vits8@sha256:{HASH}", cache_folder=tmp_path).load()
