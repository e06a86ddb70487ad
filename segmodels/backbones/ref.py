"""References to backbones: small, picklable, loaded once in each process."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from segmodels.backbones.file_digests import WeightsMismatchError
from segmodels.backbones.registry import DEFAULT_CACHE
from segmodels.engine.device import resolve_device

if TYPE_CHECKING:
    from segmodels.backbones.backbone import Backbone


@dataclass(frozen=True)
class BackboneRef:
    """Which backbone to load, and onto which device.

    Attributes:
        name: name or path, as `load_backbone` takes it.
        device: "auto", "cpu" or "cuda".
        cache_folder: where official weights are kept.
        digest: `Backbone.digest` that the loaded weights must have; None accepts any.
    """

    name: str
    device: str = "cpu"
    cache_folder: Path = DEFAULT_CACHE
    digest: str | None = None

    def load(self) -> "Backbone":
        """Load the backbone; later calls in this process return the same object.

        Raises:
            WeightsMismatchError: the weights do not have the digest, and all that
                `load_backbone` raises.
        """
        backbone = _loaded(self.name, resolve_device(self.device), self.cache_folder)
        if self.digest not in (None, backbone.digest):
            raise WeightsMismatchError(
                f"the weights of {self.name} have changed since the features were computed: compute "
                "the features again, or restore the file"
            )
        return backbone


@lru_cache(maxsize=2)
def _loaded(name: str, device: str, cache_folder: Path) -> "Backbone":
    from segmodels.backbones.backbone import load_backbone

    return load_backbone(name, device, cache_folder=cache_folder)
