"""Loading backbones: key layouts, strictness, safety and names."""

import pickle
import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import ViTConfig, ViTModel

from segmodels.backbones import load_backbone
from segmodels.backbones.layouts import official_layout
from segmodels.backbones.pixels import normalised_pixels
from segmodels.backbones.registry import REGISTRY, UnknownBackboneError
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.backbones.weights import WeightsFormatError, weights_digest

SHAPE = ViTShape(patch_size=8, dim=32, depth=2, num_heads=2, grid=3, hidden_dim=64)


def drawn(shape: ViTShape) -> dict[str, Tensor]:
    model = VisionTransformer(shape)
    model.initialise(torch.Generator().manual_seed(0))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def state() -> dict[str, Tensor]:
    return drawn(SHAPE)


@pytest.fixture
def registers_state() -> dict[str, Tensor]:
    return drawn(replace(SHAPE, registers=4, layer_scale=True))


def old_hugging_face_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of transformers before version 5, written out independently of the loader."""
    renamed = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
        "pooler.dense.weight": torch.zeros(32, 32),
        "pooler.dense.bias": torch.zeros(32),
    }
    for i in range(SHAPE.depth):
        for kind in ("weight", "bias"):
            ours, theirs = f"blocks.{i}", f"encoder.layer.{i}"
            query, key, value = state[f"{ours}.attn.qkv.{kind}"].chunk(3)
            renamed |= {
                f"{theirs}.attention.attention.query.{kind}": query.clone(),
                f"{theirs}.attention.attention.key.{kind}": key.clone(),
                f"{theirs}.attention.attention.value.{kind}": value.clone(),
                f"{theirs}.attention.output.dense.{kind}": state[f"{ours}.attn.proj.{kind}"],
                f"{theirs}.intermediate.dense.{kind}": state[f"{ours}.mlp.fc1.{kind}"],
                f"{theirs}.output.dense.{kind}": state[f"{ours}.mlp.fc2.{kind}"],
                f"{theirs}.layernorm_before.{kind}": state[f"{ours}.norm1.{kind}"],
                f"{theirs}.layernorm_after.{kind}": state[f"{ours}.norm2.{kind}"],
            }
    return renamed


def hugging_face_dinov2_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of transformers' DINOv2 before version 5, written out independently of the loader."""
    renamed = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.mask_token": torch.zeros(1, 32),
        "embeddings.register_tokens": state["register_tokens"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for i in range(SHAPE.depth):
        ours, theirs = f"blocks.{i}", f"encoder.layer.{i}"
        renamed |= {
            f"{theirs}.layer_scale1.lambda1": state[f"{ours}.ls1.gamma"],
            f"{theirs}.layer_scale2.lambda1": state[f"{ours}.ls2.gamma"],
        }
        for kind in ("weight", "bias"):
            query, key, value = state[f"{ours}.attn.qkv.{kind}"].chunk(3)
            renamed |= {
                f"{theirs}.attention.attention.query.{kind}": query.clone(),
                f"{theirs}.attention.attention.key.{kind}": key.clone(),
                f"{theirs}.attention.attention.value.{kind}": value.clone(),
                f"{theirs}.attention.output.dense.{kind}": state[f"{ours}.attn.proj.{kind}"],
            }
            same = ("mlp.fc1", "mlp.fc2", "norm1", "norm2")
            renamed |= {f"{theirs}.{n}.{kind}": state[f"{ours}.{n}.{kind}"] for n in same}
    return renamed


def timm_dinov2_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm keeps no position of CLS where there are registers: the token already contains it."""
    renamed = dict(state)
    renamed["reg_token"] = renamed.pop("register_tokens")
    renamed["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    renamed["pos_embed"] = state["pos_embed"][:, 1:]
    return renamed


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


def test_official_names_stay(state: dict[str, Tensor]) -> None:
    assert_same(official_layout(state), state)


def test_timm_names_lose_their_head(state: dict[str, Tensor]) -> None:
    timm = state | {"head.weight": torch.zeros(10, 32), "head.bias": torch.zeros(10)}
    assert_same(official_layout(timm), state)


def test_hugging_face_names_before_version_5(state: dict[str, Tensor]) -> None:
    old = old_hugging_face_layout(state)
    # .safetensors files list names alphabetically, key before query.
    assert_same(official_layout({name: old[name] for name in sorted(old)}), state)


def test_hugging_face_classifier_prefix(state: dict[str, Tensor]) -> None:
    prefixed = {f"vit.{name}": tensor for name, tensor in old_hugging_face_layout(state).items()}
    prefixed["classifier.weight"] = torch.zeros(10, 32)
    assert_same(official_layout(prefixed), state)


def test_hugging_face_names_of_the_installed_version() -> None:
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=24,
        patch_size=8,
    )
    theirs = ViTModel(config).state_dict()
    assert official_layout(theirs).keys() == VisionTransformer(SHAPE).state_dict().keys()


def test_dinov2_names_lose_their_mask_token(registers_state: dict[str, Tensor]) -> None:
    official = registers_state | {"mask_token": torch.zeros(1, 32)}
    assert_same(official_layout(official), registers_state)


def test_dinov2_training_checkpoint(registers_state: dict[str, Tensor]) -> None:
    chunked = {
        "backbone." + re.sub(r"^blocks\.(\d+)\.", r"blocks.\1.\1.", name): tensor
        for name, tensor in registers_state.items()
    }
    heads = {"dino_head.mlp.0.weight": torch.zeros(4, 4), "ibot_head.last_layer": torch.zeros(4)}
    assert_same(official_layout(chunked | heads), registers_state)


@pytest.mark.parametrize("prefix", ["", "dinov2_with_registers."])
def test_hugging_face_dinov2_names_before_version_5(
    registers_state: dict[str, Tensor], prefix: str
) -> None:
    old = hugging_face_dinov2_layout(registers_state)
    renamed = {prefix + name: old[name] for name in sorted(old)}
    assert_same(official_layout(renamed), registers_state)


def test_timm_dinov2_names_give_the_same_features(
    registers_state: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(registers_state, tmp_path / "official.safetensors")
    save_file(timm_dinov2_layout(registers_state), tmp_path / "timm.safetensors")
    pixels = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    official = load_backbone(tmp_path / "official.safetensors").extract(pixels)
    timm = load_backbone(tmp_path / "timm.safetensors").extract(pixels)
    torch.testing.assert_close(timm.keys, official.keys)
    torch.testing.assert_close(timm.cls, official.cls)


@pytest.mark.parametrize(
    "gated",
    [
        {"blocks.0.mlp.w12.weight": torch.zeros(64, 32)},
        {"embeddings.x": torch.zeros(1), "encoder.layer.0.mlp.weights_in.bias": torch.zeros(64)},
        {"embeddings.x": torch.zeros(1), "encoder.layer.0.mlp.gate_proj.bias": torch.zeros(64)},
        {
            "blocks.0.mlp.fc1.weight": torch.zeros(64, 32),
            "blocks.0.mlp.fc2.weight": torch.zeros(32, 32),
        },
    ],
)
def test_swiglu_is_refused(gated: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(gated, tmp_path / "giant.safetensors")
    with pytest.raises(WeightsFormatError, match="use dinov2_vitl14 or smaller"):
        load_backbone(tmp_path / "giant.safetensors")


def test_wrapped_training_checkpoint(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "full.pth"
    teacher = {f"module.backbone.{name}": tensor for name, tensor in state.items()}
    teacher["module.head.last_layer.weight"] = torch.zeros(4, 4)
    torch.save({"epoch": 3, "student": {}, "teacher": teacher}, path)
    assert load_backbone(path).digest == weights_digest(state)


def test_one_digest_in_every_container(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    torch.save(old_hugging_face_layout(state), tmp_path / "c.pth")
    digests = {
        load_backbone(tmp_path / name).digest for name in ("a.pth", "b.safetensors", "c.pth")
    }
    assert digests == {weights_digest(state)}
    state["norm.bias"][0] += 1
    assert weights_digest(state) not in digests


def test_settings_travel_with_the_weights(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    metadata = {"num_heads": "4", "image_size": "96", "tau": "0.25", "center_keys": "true"}
    save_file(state, path, metadata)
    backbone = load_backbone(path)
    assert (backbone.patch_size, backbone.dim, backbone.image_size) == (8, 32, 96)
    assert (backbone.tau, backbone.center_keys) == (0.25, True)
    assert backbone.name == str(path)


def test_weights_without_settings_get_the_papers(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "plain.pth"
    torch.save(state, path)
    backbone = load_backbone(path)
    assert (backbone.image_size, backbone.tau, backbone.center_keys) == (480, 0.15, False)


def test_patches_that_do_not_fill_480_pixels_get_the_native_size(tmp_path: Path) -> None:
    save_file(drawn(replace(SHAPE, patch_size=14, grid=37)), tmp_path / "dinov2.safetensors")
    assert load_backbone(tmp_path / "dinov2.safetensors").image_size == 518


def test_a_recommended_size_is_a_multiple_of_the_patch(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(state, tmp_path / "odd.safetensors", {"image_size": "100"})
    with pytest.raises(WeightsFormatError, match="correct image_size"):
        load_backbone(tmp_path / "odd.safetensors")


def test_normalisation_travels_with_the_weights(state: dict[str, Tensor], tmp_path: Path) -> None:
    metadata = {"image_mean": "[0.5, 0.4, 0.3]", "image_std": "[0.5, 0.3, 0.2]"}
    save_file(state, tmp_path / "theirs.safetensors", metadata)
    save_file(state, tmp_path / "plain.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.5, 0.3, 0.2])
    theirs = torch.as_tensor(((image / 255 - mean) / std).transpose(2, 0, 1)[None]).float()
    ours = torch.as_tensor(normalised_pixels(image)[None])
    got = load_backbone(tmp_path / "theirs.safetensors").extract(ours)
    expected = load_backbone(tmp_path / "plain.safetensors").extract(theirs)
    torch.testing.assert_close(got.tokens, expected.tokens, atol=1e-5, rtol=1e-5)


def test_missing_and_unexpected_names_are_listed(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["norm.bias"], state["blocks.1.attn.qkv.bias"]
    state["blocks.0.attn.q_norm.weight"] = torch.zeros(32)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsFormatError) as caught:
        load_backbone(tmp_path / "odd.pth")
    assert "missing ['blocks.1.attn.qkv.bias', 'norm.bias']" in str(caught.value)
    assert "unexpected ['blocks.0.attn.q_norm.weight']" in str(caught.value)


def test_wrong_shapes_are_listed(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["norm.bias"] = torch.zeros(31)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsFormatError, match=r"wrong shape of \['norm.bias'\]"):
        load_backbone(tmp_path / "odd.pth")


@pytest.mark.parametrize(
    "content", [{"conv1.weight": torch.zeros(64, 3, 7, 7)}, {}, {"state_dict": [1]}, [1, 2]]
)
def test_other_networks_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsFormatError):
        load_backbone(tmp_path / "other.pth")


def test_pickled_objects_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"teacher": state, "args": Namespace(epochs=1)}, tmp_path / "objects.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Namespace(epochs=1), protocol=2))
    for name in ("objects.pth", "plain.pth"):
        with pytest.raises(WeightsFormatError, match="would run code"):
            load_backbone(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(b"not weights at all")
    with pytest.raises(WeightsFormatError, match="damaged"):
        load_backbone(path)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownBackboneError) as caught:
        load_backbone("dino_vits14")
    for name in ("'dino_vits14'", *REGISTRY):
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["embedded", "embedded_dino"])
def test_embedded_loads_and_extracts(name: str) -> None:
    backbone = load_backbone(name)
    side = 4 * backbone.patch_size
    features = backbone.extract(torch.zeros(1, 3, side, side))
    assert backbone.name == name
    assert features.keys.shape == (1, 4, 4, backbone.dim)
    assert torch.isfinite(features.keys).all()
    assert backbone.image_size % backbone.patch_size == 0


@pytest.mark.parametrize("extra", [{}, {"registers": 4, "layer_scale": True}])
def test_untrained_is_the_same_network_with_other_weights(
    extra: dict[str, int], tmp_path: Path
) -> None:
    state = drawn(replace(SHAPE, **extra))
    # What a trained network has: no parameter is as it was drawn.
    state = {name: tensor + 1 for name, tensor in state.items()}
    metadata = {"num_heads": "2", "image_size": "64", "tau": "0.3", "center_keys": "true"}
    save_file(state, tmp_path / "weights.safetensors", metadata)
    trained = load_backbone(tmp_path / "weights.safetensors")
    untrained = trained.untrained(1)
    assert (untrained.image_size, untrained.tau, untrained.center_keys) == (64, 0.3, True)
    assert {name: tensor.shape for name, tensor in untrained.state().items()} == {
        name: tensor.shape for name, tensor in state.items()
    }
    assert not [name for name, new in untrained.state().items() if torch.equal(new, state[name])]
    assert (untrained.state()["patch_embed.proj.weight"].std() - 0.02).abs() < 0.002
    assert trained.digest == weights_digest(state)
    assert untrained.digest == trained.untrained(1).digest != trained.untrained(2).digest
    assert torch.isfinite(untrained.extract(torch.zeros(1, 3, 64, 64)).cls).all()
