"""Where backbone weights come from: the repository, the official DINO downloads, or a file."""

import hashlib
import pickle
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segmodels.formats.atomic import replacing

DEFAULT_CACHE = Path("~/.cache/exnihilo")
EMBEDDED = "embedded"
EMBEDDED_FILE = Path(__file__).parent / "weights" / "embedded.safetensors"

_OFFICIAL_SITE = "https://dl.fbaipublicfiles.com/dino"
# Names of the official releases; small/8 is the 300-epoch one that MaskCut uses.
OFFICIAL = {
    "dino_vits16": "dino_deitsmall16_pretrain",
    "dino_vits8": "dino_deitsmall8_300ep_pretrain",
    "dino_vitb16": "dino_vitbase16_pretrain",
    "dino_vitb8": "dino_vitbase8_pretrain",
}

# What torch's safe unpickler raises, besides refusing: bytes of any kind may end anywhere in it.
_NOT_WEIGHTS = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError)


class UnknownBackboneError(ValueError):
    """The name is neither a known backbone nor an existing file."""


class WeightsFormatError(ValueError):
    """The file does not hold a vision transformer's weights."""


class WeightsUnavailableError(RuntimeError):
    """Named weights are not on this machine and cannot be fetched."""


@dataclass(frozen=True)
class WeightsFile:
    """Tensors as stored, and the settings stored beside them (empty for official weights)."""

    state: dict[str, Tensor]
    metadata: Mapping[str, str]


def locate_weights(name_or_path: str | Path, cache_folder: str | Path = DEFAULT_CACHE) -> Path:
    """Find the file of a backbone, downloading official weights that the cache lacks.

    Args:
        name_or_path: `embedded`, an official name, or the path of a .pth or .safetensors file.
        cache_folder: where official weights are kept.

    Raises:
        UnknownBackboneError: neither a known name nor an existing file.
        WeightsUnavailableError: official weights are missing and the download failed.
    """
    name = str(name_or_path)
    if name == EMBEDDED:
        return EMBEDDED_FILE
    if name in OFFICIAL:
        release = OFFICIAL[name]
        path = Path(cache_folder).expanduser() / f"{release}.pth"
        if not path.is_file():
            download(f"{_OFFICIAL_SITE}/{release}/{release}.pth", path)
        return path
    path = Path(name).expanduser()
    if not path.is_file():
        names = ", ".join([EMBEDDED, *OFFICIAL])
        raise UnknownBackboneError(
            f"unknown backbone {name!r}: give one of {names}, or the path of an existing "
            ".pth or .safetensors file"
        )
    return path


def download(address: str, path: Path) -> None:
    """Fetch a file to a temporary name, check its size, then move it into place.

    Raises:
        WeightsUnavailableError: no connection or a short answer; says how to do it by hand.
    """
    try:
        with replacing(path) as partial, partial.open("wb") as target:
            _fetch(address, target)
    except OSError as error:
        raise WeightsUnavailableError(
            f"could not download {address} ({error}); fetch it on a machine with network access "
            f"and put it into {path.parent} as {path.name}"
        ) from error


def _fetch(address: str, target: BinaryIO) -> None:
    with urllib.request.urlopen(address, timeout=30) as answer:
        copyfileobj(answer, target)
        expected = int(answer.headers.get("Content-Length") or -1)
    if expected not in (-1, target.tell()):
        raise OSError(f"got {target.tell()} of {expected} bytes")


def read_weights(path: Path) -> WeightsFile:
    """Read tensors from a .safetensors file or, without running any pickled code, a .pth file.

    Raises:
        WeightsFormatError: the file is damaged, holds objects other than tensors, or no tensors.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _NOT_WEIGHTS as error:
        raise WeightsFormatError(
            f"{path} is not a plain weights file (damaged, or it holds objects that would run "
            "code): save only the model's state_dict, best as .safetensors"
        ) from error
    return WeightsFile(_tensors(content, path), {})


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: equal for equal weights in any container."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return WeightsFile(state, file.metadata() or {})
    except SafetensorError as error:
        raise WeightsFormatError(f"{path} is not a readable .safetensors file: {error}") from error


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """Take the state out of the dictionaries that training code wraps around it."""
    while isinstance(content, dict):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
        wrapper = next((k for k in ("teacher", "state_dict", "model") if k in content), None)
        if wrapper is None:
            break
        content = content[wrapper]
    raise WeightsFormatError(
        f"{path} holds no table of tensors: save the model's state_dict and nothing else"
    )
