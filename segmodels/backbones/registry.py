"""Backbones by name: what each one is, and where its weights are from. Nothing here loads torch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kernels.errors import ExNihiloError

# A further kind (CLIP) is one more value here, with a loader of its own.
Kind = Literal["vit", "resnet"]
_DESCRIBED: dict[Kind, str] = {
    "vit": "a vision transformer and has no feature pyramid: load_backbone loads it",
    "resnet": "a ResNet and has no attention keys: load_resnet loads it",
}

DEFAULT_CACHE = Path("~/.cache/exnihilo")
EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "weights"
_META = "https://dl.fbaipublicfiles.com"
_TORCHVISION = "https://download.pytorch.org"


@dataclass(frozen=True)
class Entry:
    """A named weights file: for which network, its path on a site, and the site.

    Without a site, the path is that of a file in `EMBEDDED_FOLDER`.
    """

    kind: Kind
    path: str
    site: str = _META

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return self.path.rsplit("/", 1)[-1]


# "embedded_dino" has only been through self-distillation. Afterwards the keys of "embedded" learned
# to separate objects from backgrounds, which made the tokens of all backgrounds alike.
# DINO's ViT-S/8 is the one of 300 epochs that MaskCut uses. torchvision's ResNets were trained with
# ImageNet's labels, all others without any.
REGISTRY: dict[str, Entry] = {
    EMBEDDED: Entry("vit", "embedded.safetensors", site=""),
    "embedded_dino": Entry("vit", "embedded_dino.safetensors", site=""),
    "dino_vits16": Entry("vit", "dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth"),
    "dino_vits8": Entry(
        "vit", "dino/dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth"
    ),
    "dino_vitb16": Entry("vit", "dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"),
    "dino_vitb8": Entry("vit", "dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth"),
    "dinov2_vits14": Entry("vit", "dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"),
    "dinov2_vitb14": Entry("vit", "dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth"),
    "dinov2_vitl14": Entry("vit", "dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"),
    "dinov2_vits14_reg": Entry("vit", "dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth"),
    "dinov2_vitb14_reg": Entry("vit", "dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth"),
    "dinov2_vitl14_reg": Entry("vit", "dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth"),
    "dino_resnet50": Entry("resnet", "dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"),
    "resnet18": Entry("resnet", "models/resnet18-f37072fd.pth", _TORCHVISION),
    "resnet34": Entry("resnet", "models/resnet34-b627a593.pth", _TORCHVISION),
    "resnet50": Entry("resnet", "models/resnet50-0676ba61.pth", _TORCHVISION),
}
_FOR_STUFF = {EMBEDDED: "embedded_dino"}

_HASHED = re.compile(r"(?P<name>.+)@sha256:(?P<sha256>.*)", re.DOTALL)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class UnknownBackboneError(ExNihiloError, ValueError):
    """The name is neither a known backbone nor an existing file."""


class WrongNetworkError(ExNihiloError, ValueError):
    """The backbone is another kind of network than the one that was asked for."""


@dataclass(frozen=True)
class BackboneName:
    """A key of `REGISTRY` or a path, and the only SHA-256 that its file may have; None accepts any."""

    name: str
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str | Path) -> "BackboneName":
        """Split `name@sha256:digits`; the hash may be left out.

        Raises:
            UnknownBackboneError: what follows `@sha256:` is not a SHA-256.
        """
        match = _HASHED.fullmatch(str(text))
        if match is None:
            return cls(str(text))
        sha256 = match["sha256"].strip().lower()
        if not _SHA256.fullmatch(sha256):
            raise UnknownBackboneError(
                f"after @sha256: come the 64 hexadecimal digits of the file's SHA-256, got {sha256!r}"
            )
        return cls(match["name"], sha256)


def names_of(kind: Kind) -> list[str]:
    """List the registry's names of one kind."""
    return [name for name, entry in REGISTRY.items() if entry.kind == kind]


def wrong_network(name: str | Path, found: Kind, wanted: Kind) -> WrongNetworkError:
    """Compose the error of a backbone that is of another kind than the wanted one."""
    known = ", ".join(names_of(wanted))
    return WrongNetworkError(f"{name} is {_DESCRIBED[found]}; give one of {known}, or a path")


def stuff_name(name: str) -> str:
    """Name the backbone whose tokens STEGO learns from, given the one whose keys MaskCut cuts."""
    return _FOR_STUFF.get(BackboneName.parse(name).name, name)
