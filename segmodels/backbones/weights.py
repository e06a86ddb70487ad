"""Backbone weights in files: tensors by name, and the metadata stored beside them."""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kernels.errors import ExNihiloError

# What torch's safe unpickler raises on bytes of any kind, besides its own refusal.
_NOT_WEIGHTS = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError)


class WeightsFormatError(ExNihiloError, ValueError):
    """The file does not hold the weights of the network that was asked for."""


@dataclass(frozen=True)
class WeightsFile:
    """Tensors as stored, and the metadata stored beside them (empty for official weights)."""

    state: dict[str, Tensor]
    metadata: Mapping[str, str]


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


def load_strictly(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors whose names and shapes are exactly the model's.

    Raises:
        WeightsFormatError: lists the missing and the unexpected names, or the wrong shapes.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise WeightsFormatError(
            f"weights do not fit: missing {missing or 'none'}, unexpected {unexpected or 'none'}"
        )
    wrong = [name for name in expected if expected[name].shape != state[name].shape]
    if wrong:
        raise WeightsFormatError(f"weights do not fit: wrong shape of {wrong}")
    model.load_state_dict(state)


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return WeightsFile(state, file.metadata() or {})
    except SafetensorError as error:
        raise WeightsFormatError(f"{path} is not a readable .safetensors file: {error}") from error


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """Unwrap the state from the dictionaries that training code saves it in."""
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
