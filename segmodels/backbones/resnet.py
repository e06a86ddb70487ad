"""ResNet-18, 34 and 50 (He et al. 2016) as networks of feature maps.

Parameter names and numerics are torchvision's (stride in the 3 x 3 convolution of a bottleneck,
"v1.5"), so that its files and DINO's `dino_resnet50` load without renaming. There is no classifier:
`fc.*` is dropped.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.backbones.cache import locate_weights
from segmodels.backbones.layouts import official_layout
from segmodels.backbones.registry import DEFAULT_CACHE
from segmodels.backbones.weights import WeightsFormatError, load_strictly, read_weights

WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, H, W) to (n, width, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, H, W) to (n, 4 width, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + self.downsample(x))


# Depth: kind of block, and blocks of each stage.
LAYOUTS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A ResNet that returns the feature maps of its four stages.

    Args:
        depth: 18, 34 or 50.

    Attributes:
        channels: of the four maps, (64, 128, 256, 512), with depth 50 four times as many.

    Raises:
        ValueError: another depth.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth not in LAYOUTS:
            raise ValueError(f"depth must be one of {', '.join(map(str, LAYOUTS))}, got {depth}")
        block, counts = LAYOUTS[depth]
        self.channels = tuple(width * block.expansion for width in WIDTHS)
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, (width, count) in enumerate(zip(WIDTHS, counts, strict=True), start=1):
            blocks = []
            for position in range(count):
                stride = 2 if stage > 1 and position == 0 else 1
                blocks.append(block(channels, width, stride))
                channels = width * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the maps of strides 4, 8, 16 and 32.

        Args:
            pixels: (n, 3, H, W) float32 RGB, normalised as `pixels.normalised_pixels` does; any
                size.

        Returns:
            (n, c, ceil(H / stride), ceil(W / stride)) each, c of `channels`.
        """
        x = functional.relu(self.bn1(self.conv1(pixels)))
        x = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        c2 = self.get_submodule("layer1")(x)
        c3 = self.get_submodule("layer2")(c2)
        c4 = self.get_submodule("layer3")(c3)
        return c2, c3, c4, self.get_submodule("layer4")(c4)


def load_resnet(
    name_or_path: str | Path,
    *,
    cache_folder: str | Path = DEFAULT_CACHE,
    site: str | None = None,
) -> ResNet:
    """Load a ResNet, in evaluation mode, by name or from a file.

    Args:
        name_or_path: `dino_resnet50`, `resnet18`, `resnet34`, `resnet50`, or the path of a file
            with torchvision's names; see `cache.locate_weights` for `@sha256:`.
        cache_folder: where official weights are kept.
        site: a mirror to fetch official weights from; None is the publisher's.

    Raises:
        WrongNetworkError: the name is a vision transformer's.
        WeightsFormatError: the file is not that of a ResNet-18, 34 or 50, and all that
            `cache.locate_weights` raises.
    """
    path = locate_weights(name_or_path, cache_folder, kind="resnet", site=site)
    return build_resnet(read_weights(path).state)


def build_resnet(state: Mapping[str, Tensor]) -> ResNet:
    """Build the ResNet that a state describes and load it strictly.

    Args:
        state: tensors by torchvision's names; prefixes and `fc.*` are dropped, and
            `num_batches_tracked`, which older files lack, may be missing.

    Raises:
        WeightsFormatError: not a ResNet-18, 34 or 50, or names or shapes that do not fit.
    """
    kept = official_layout(dict(state))
    model = ResNet(_depth(kept))
    for name in model.state_dict():
        if name.endswith("num_batches_tracked"):
            kept.setdefault(name, torch.zeros((), dtype=torch.int64))
    load_strictly(model, kept)
    return model.eval()


def _depth(state: Mapping[str, Tensor]) -> int:
    """Find the layout whose blocks a state has."""
    block = Bottleneck if "layer1.0.conv3.weight" in state else BasicBlock
    found = {tuple(name.split(".")[:2]) for name in state if name.startswith("layer")}
    for depth, (kind, counts) in LAYOUTS.items():
        blocks = {
            (f"layer{stage}", str(number))
            for stage, count in enumerate(counts, start=1)
            for number in range(count)
        }
        if kind is block and blocks == found:
            return depth
    raise WeightsFormatError("not a ResNet-18, 34 or 50 with torchvision's names")


def _conv(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(channels: int, width: int, stride: int) -> nn.Module:
    """A projection where the shape changes, else the identity."""
    if stride == 1 and channels == width:
        return nn.Identity()
    return nn.Sequential(_conv(channels, width, 1, stride), nn.BatchNorm2d(width))
