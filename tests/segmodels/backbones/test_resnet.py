"""Our ResNets: torchvision's names and sizes, and MMDetection's feature maps from the same weights."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from file_server import serving
from torch import Tensor, nn

from segmodels.backbones import load_backbone, load_resnet
from segmodels.backbones.file_digests import WeightsMismatchError
from segmodels.backbones.registry import EMBEDDED_FOLDER, REGISTRY, WrongNetworkError, names_of
from segmodels.backbones.resnet import ResNet, build_resnet
from segmodels.backbones.weights import WeightsFormatError
from segmodels.detector.registration import register

# torchvision's published sizes, with the classifier of 1000 classes that we leave out.
PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}


def drawn(depth: int) -> dict[str, Tensor]:
    """A state whose normalisation layers do something."""
    torch.manual_seed(depth)
    model = ResNet(depth)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return dict(model.state_dict())


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_maps_are_those_of_mmdetection(depth: int) -> None:
    register()
    from mmdet.models.backbones import ResNet as Referee

    state = drawn(depth)
    referee = Referee(depth=depth)
    referee.eval()
    referee.load_state_dict(state, strict=True)
    pixels = torch.randn(2, 3, 70, 97, generator=torch.Generator().manual_seed(0))
    ours = build_resnet(state)
    with torch.no_grad():
        maps, expected = ours(pixels), referee(pixels)
    assert [tuple(one.shape) for one in maps] == [
        (2, channels, -(-70 // stride), -(-97 // stride))
        for channels, stride in zip(ours.channels, ours.strides, strict=True)
    ]
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_sizes_are_those_of_torchvision(depth: int) -> None:
    model = ResNet(depth)
    classifier = (model.channels[-1] + 1) * 1000
    assert sum(p.numel() for p in model.parameters()) + classifier == PARAMETERS[depth]


def with_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if "num_batches" not in name}


def of_a_wrapped_model(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.backbone.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("variant", [with_classifier, without_counters, of_a_wrapped_model])
def test_published_variants_load(
    variant: Callable[[dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path
) -> None:
    state = drawn(18)
    torch.save(variant(state), tmp_path / "r18.pth")
    model = load_resnet(tmp_path / "r18.pth")
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_loading_is_strict() -> None:
    state = drawn(18)
    with pytest.raises(WeightsFormatError, match=r"missing \['bn1.bias'\]"):
        build_resnet({name: tensor for name, tensor in state.items() if name != "bn1.bias"})
    with pytest.raises(WeightsFormatError, match=r"unexpected \['layer1.0.se.weight'\]"):
        build_resnet(state | {"layer1.0.se.weight": torch.zeros(1)})
    with pytest.raises(WeightsFormatError, match=r"wrong shape of \['conv1.weight'\]"):
        build_resnet(state | {"conv1.weight": torch.zeros(64, 3, 3, 3)})
    with pytest.raises(WeightsFormatError, match="not a ResNet-18, 34 or 50"):
        build_resnet({name: t for name, t in state.items() if not name.startswith("layer4.1")})


def test_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="depth must be one of 18, 34, 50, got 101"):
        ResNet(101)


def test_a_resnet_has_no_keys(tmp_path: Path) -> None:
    # By name before anything is fetched, and by what a file holds.
    for name in ("dino_resnet50", f"resnet50@sha256:{'0' * 64}"):
        with pytest.raises(WrongNetworkError, match="is a ResNet and has no attention keys"):
            load_backbone(name, cache_folder=tmp_path, site="http://127.0.0.1:9")
    torch.save(with_classifier(drawn(18)), tmp_path / "r18.pth")
    with pytest.raises(
        WrongNetworkError, match="load_resnet loads it; give one of embedded, embedded_dino"
    ):
        load_backbone(tmp_path / "r18.pth")


def test_a_vision_transformer_is_no_resnet(tmp_path: Path) -> None:
    with pytest.raises(WrongNetworkError, match="give one of dino_resnet50, resnet18"):
        load_resnet("dino_vitb8", cache_folder=tmp_path)
    with pytest.raises(WeightsFormatError, match="not a ResNet"):
        load_resnet(EMBEDDED_FOLDER / REGISTRY["embedded"].path)


def test_names_of_a_kind() -> None:
    assert names_of("resnet") == ["dino_resnet50", "resnet18", "resnet34", "resnet50"]
    assert set(names_of("vit")) | set(names_of("resnet")) == set(REGISTRY)


def test_an_official_resnet_is_fetched_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = drawn(18)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    # DINO's file has no digits in its name; what torchvision's name promises cannot be made up.
    files = {REGISTRY[name].path: content for name in ("dino_resnet50", "resnet18")}
    with serving(files) as server:
        name = f"dino_resnet50@sha256:{hashlib.sha256(content).hexdigest()}"
        model = load_resnet(name, cache_folder=tmp_path, site=server.address)
        assert torch.equal(model.state_dict()["conv1.weight"], state["conv1.weight"])
        with pytest.raises(WeightsMismatchError, match="SHA-256 that begins with f37072fd"):
            load_resnet("resnet18", cache_folder=tmp_path, site=server.address)
    assert not list(tmp_path.glob("resnet18*"))
    (tmp_path / REGISTRY["resnet18"].file_name).write_bytes(content)
    with pytest.raises(WeightsMismatchError, match="fetch it from its publisher again"):
        load_resnet("resnet18", cache_folder=tmp_path)
