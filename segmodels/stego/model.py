"""A trained STEGO head with its cluster centres, and its file."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from segmodels.stego.head import ClusterProbe, SegmentationHead


@dataclass(frozen=True)
class StegoModel:
    """Head and cluster centres; `scores` is all that segmentation needs.

    Attributes:
        head: tokens -> code.
        probe: code -> cosine with each cluster centre.
        history: (checkpoints, 5) float32, one row a report: step, total loss, and the same,
            neighbour and random terms; empty for a loaded model.
    """

    head: SegmentationHead
    probe: ClusterProbe
    history: np.ndarray

    @property
    def in_dim(self) -> int:
        """Width of the tokens that the head reads."""
        return self.head.linear.in_channels

    @property
    def dim(self) -> int:
        """Width of the code."""
        return self.head.linear.out_channels

    @property
    def num_clusters(self) -> int:
        """Number of stuff clusters S."""
        return len(self.probe.centres)

    def codes(self, tokens: torch.Tensor) -> torch.Tensor:
        """Codes of token maps (n, gh, gw, in_dim): (n, dim, gh, gw) float32."""
        device = self.probe.centres.device
        with torch.inference_mode():
            return self.head(tokens.to(device, torch.float32).permute(0, 3, 1, 2))

    def to(self, device: str | torch.device) -> "StegoModel":
        """Move head and centres to a device; returns the model itself."""
        self.head.to(device)
        self.probe.to(device)
        return self

    def save(self, path: str | Path) -> None:
        """Write weights and shapes to a safetensors file (atomically, no timestamps)."""
        path = Path(path)
        tensors = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        tensors["probe.centres"] = self.probe.centres.detach()
        contiguous = {name: value.cpu().contiguous() for name, value in tensors.items()}
        shapes = {"format": "exnihilo-stego-1", "dropout": self.head.dropout}
        partial = path.with_name(path.name + ".partial")
        save_file(contiguous, partial, metadata={"stego": json.dumps(shapes, sort_keys=True)})
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "StegoModel":
        """Read a file written by `save`.

        Raises:
            ValueError: the file is no STEGO model of this project.
        """
        with safe_open(str(path), framework="pt") as stored:
            metadata = (stored.metadata() or {}).get("stego")
            if metadata is None:
                raise ValueError(f"{path} is no STEGO model: train one with the asset stuff_model")
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        dim, in_dim = tensors["head.linear.weight"].shape[:2]
        generator = torch.Generator()
        head = SegmentationHead(
            in_dim, dim, dropout=json.loads(metadata)["dropout"], generator=generator
        )
        centres = tensors.pop("probe.centres")
        probe = ClusterProbe(dim, len(centres), generator=generator)
        probe.load_state_dict({"centres": centres})
        head.load_state_dict({name.removeprefix("head."): t for name, t in tensors.items()})
        return cls(head.eval(), probe.eval(), np.zeros((0, 5), np.float32)).to(device)
