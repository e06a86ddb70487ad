"""The transformer against transformers' ViT and DINOv2, and DINO's published position rule."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.backbone import Backbone, build_model
from segmodels.backbones.vit import VisionTransformer, ViTShape

SHAPE = ViTShape(patch_size=8, dim=48, depth=3, num_heads=4, grid=4, hidden_dim=96)


def random_model(shape: ViTShape = SHAPE, seed: int = 0) -> VisionTransformer:
    """Weights large enough that attention and norms matter."""
    model = VisionTransformer(shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def as_backbone(model: VisionTransformer) -> Backbone:
    return Backbone("test", model, MaskCutAdvice(32, 0.15))


SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}


def with_random_weights(model: PreTrainedModel) -> PreTrainedModel:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def vit() -> PreTrainedModel:
    config = ViTConfig(**SIZES, image_size=32, intermediate_size=96, layer_norm_eps=1e-6)
    return with_random_weights(ViTModel(config, add_pooling_layer=False))


@pytest.fixture(scope="module")
def dinov2() -> PreTrainedModel:
    return with_random_weights(Dinov2Model(Dinov2Config(**SIZES, image_size=32, mlp_ratio=2)))


@pytest.fixture(scope="module")
def registers() -> PreTrainedModel:
    config = Dinov2WithRegistersConfig(**SIZES, image_size=32, mlp_ratio=2, num_register_tokens=3)
    return with_random_weights(Dinov2WithRegistersModel(config))


@torch.no_grad()
def reference_features(
    model: PreTrainedModel, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Final tokens and last-block keys of every token, the first and the registers included."""
    captured = {}
    last_keys = next(
        module
        for name, module in reversed(list(model.named_modules()))
        if name.endswith(("k_proj", "attention.key"))
    )
    hook = last_keys.register_forward_hook(
        lambda _module, _inputs, output: captured.update(keys=output)
    )
    tokens = model(pixels).last_hidden_state
    hook.remove()
    return tokens, captured["keys"]


def assert_equal_features(model: PreTrainedModel, pixels: torch.Tensor, registers: int = 0) -> None:
    tokens, keys = reference_features(model, pixels)
    ours = build_model(dict(model.state_dict()), {"num_heads": "4"})
    features = as_backbone(ours).extract(pixels)
    first = 1 + registers
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
    close(features.cls, tokens[:, 0])
    close(features.tokens.flatten(1, 2), tokens[:, first:])
    close(features.keys.flatten(1, 2), keys[:, first:])


def pixels_of(height: int, width: int) -> torch.Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_vit_equals_transformers(vit: PreTrainedModel) -> None:
    assert_equal_features(vit, pixels_of(32, 32))


def test_layer_scale_equals_transformers(dinov2: PreTrainedModel) -> None:
    assert_equal_features(dinov2, pixels_of(32, 32))


@pytest.mark.parametrize("size", [(32, 32), (40, 56), (24, 16)])
def test_registers_equal_transformers_at_any_size(
    registers: PreTrainedModel, size: tuple[int, int]
) -> None:
    assert_equal_features(registers, pixels_of(*size), registers=3)


@pytest.mark.parametrize(
    ("fixture", "size", "first"),
    [("vit", (32, 32), 1), ("dinov2", (32, 32), 1), ("registers", (40, 24), 4)],
)
def test_attention_of_cls_equals_transformers(
    request: pytest.FixtureRequest, fixture: str, size: tuple[int, int], first: int
) -> None:
    model: PreTrainedModel = request.getfixturevalue(fixture)
    model.set_attn_implementation("eager")
    pixels = pixels_of(*size)
    with torch.no_grad():
        expected = model(pixels, output_attentions=True).attentions[-1][:, :, 0, first:]
    got = as_backbone(build_model(dict(model.state_dict()), {"num_heads": "4"}))
    grid = (size[0] // 8, size[1] // 8)
    torch.testing.assert_close(
        got.cls_attention(pixels), expected.unflatten(2, grid), atol=0, rtol=1e-4
    )
    # Not uniform: the comparison means something.
    assert expected.amax() > 1.2 * expected.amin()


def test_attention_of_cls_refuses_what_extract_refuses() -> None:
    with pytest.raises(ValueError, match="multiples of the patch size 8"):
        as_backbone(random_model()).cls_attention(torch.zeros(1, 3, 30, 32))


def cubic_weights(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys' cubic convolution kernel, with the constant that torch uses."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resample_matrix(native: int, target: int) -> np.ndarray:
    """Bicubic resampling whose coordinates follow from the factor (target + 0.1) / native."""
    matrix = np.zeros((target, native))
    for row in range(target):
        centre = (row + 0.5) * native / (target + 0.1) - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[row, np.clip(tap, 0, native - 1)] += cubic_weights(np.array(tap - centre))
    return matrix


@pytest.mark.parametrize("layer_scale", [False, True])
def test_positions_follow_the_scale_factor_rule_by_hand(layer_scale: bool) -> None:
    model = random_model(replace(SHAPE, layer_scale=layer_scale))
    table = model.pos_embed[0, 1:].detach().double().numpy().reshape(4, 4, -1)
    expected = np.einsum(
        "yi,xj,ijd->yxd", resample_matrix(4, 5), resample_matrix(4, 7), table, optimize=True
    )
    got = model.position_embedding(5, 7)[0].detach().numpy()
    np.testing.assert_array_equal(got[0], model.pos_embed[0, 0].detach().numpy())
    np.testing.assert_allclose(got[1:].reshape(5, 7, -1), expected, atol=1e-5)


def test_positions_differ_from_resampling_by_target_size() -> None:
    model = random_model()
    table = model.pos_embed[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    by_factor = functional.interpolate(
        table, scale_factor=(5.1 / 4, 7.1 / 4), mode="bicubic", align_corners=False
    )
    by_size = functional.interpolate(table, size=(5, 7), mode="bicubic", align_corners=False)
    got = model.position_embedding(5, 7)[:, 1:].transpose(1, 2).reshape(by_factor.shape)
    torch.testing.assert_close(got, by_factor, atol=0, rtol=0)
    assert (got - by_size).abs().max() > 1e-3


def test_native_positions_are_used_as_stored() -> None:
    model = random_model()
    assert model.position_embedding(4, 4) is model.pos_embed


def test_extract_does_not_depend_on_the_batch() -> None:
    backbone = as_backbone(random_model())
    batch = torch.randn(5, 3, 40, 56, generator=torch.Generator().manual_seed(2))
    together = backbone.extract(batch)
    assert together.keys.shape == (5, 5, 7, 48)
    assert together.tokens.shape == (5, 5, 7, 48)
    assert together.cls.shape == (5, 48)
    for i in range(5):
        alone = backbone.extract(batch[i : i + 1])
        for name in ("keys", "tokens", "cls"):
            torch.testing.assert_close(
                getattr(alone, name)[0], getattr(together, name)[i], atol=1e-5, rtol=1e-5
            )


def test_all_patches_kept_in_order_is_the_full_pass() -> None:
    model = random_model()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        full = model(pixels)
        kept = model(pixels, torch.arange(16).expand(2, -1))
    torch.testing.assert_close(kept.keys, full.keys)
    torch.testing.assert_close(kept.cls, full.cls)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.zeros(3, 32, 32), "batch must be"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), "float64"),
        (torch.zeros(1, 3, 30, 32), "multiples of the patch size 8"),
    ],
)
def test_extract_refuses_what_it_cannot_use(batch: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        as_backbone(random_model()).extract(batch)


def test_registers_and_layer_scale_start_neutral() -> None:
    model = VisionTransformer(replace(SHAPE, registers=2, layer_scale=True))
    model.initialise(torch.Generator().manual_seed(0))
    assert torch.equal(model.blocks[0].ls1.gamma, torch.ones(48))
    assert as_backbone(model).extract(pixels_of(32, 32)).tokens.shape == (3, 4, 4, 48)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads"):
        ViTShape(patch_size=8, dim=48, depth=1, num_heads=5, grid=4, hidden_dim=96)
