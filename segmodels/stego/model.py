"""A trained STEGO model and its file."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from segmodels.formats.atomic import replacing
from segmodels.stego.head import ClusterProbe, SegmentationHead

_CENTROIDS = "probe.centres"  # in the file


@dataclass(frozen=True)
class StegoModel:
    """Segmentation head and cluster probe.

    Attributes:
        head: tokens to code.
        probe: code to cosine with each centroid.
        history: (reports, 5) float32: step, total loss, and the same, neighbour and random terms;
            empty for a loaded model.
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
        return len(self.probe.centroids)

    def codes(self, tokens: torch.Tensor) -> torch.Tensor:
        """Codes of token maps (n, gh, gw, in_dim): (n, dim, gh, gw) float32."""
        device = self.probe.centroids.device
        with torch.inference_mode():
            codes: torch.Tensor = self.head(tokens.to(device, torch.float32).permute(0, 3, 1, 2))
        return codes

    def to(self, device: str | torch.device) -> "StegoModel":
        """Move the weights to a device; returns the model itself."""
        self.head.to(device)
        self.probe.to(device)
        return self

    def save(self, path: str | Path) -> None:
        """Write weights and shapes to a safetensors file (atomically, no timestamps)."""
        tensors = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        tensors[_CENTROIDS] = self.probe.centroids.detach()
        contiguous = {name: value.cpu().contiguous() for name, value in tensors.items()}
        shapes = {"format": "exnihilo-stego-1", "dropout": self.head.dropout}
        with replacing(path) as partial:
            save_file(contiguous, partial, metadata={"stego": json.dumps(shapes, sort_keys=True)})

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "StegoModel":
        """Read a file that `save` wrote.

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
        centroids = tensors.pop(_CENTROIDS)
        probe = ClusterProbe(dim, len(centroids), generator=generator)
        probe.load_state_dict({"centroids": centroids})
        head.load_state_dict({name.removeprefix("head."): t for name, t in tensors.items()})
        return cls(head.eval(), probe.eval(), np.zeros((0, 5), np.float32)).to(device)
