"""The resource that finds backbone weights, and the backbones that a dataset's stages use."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.stages.store import Version
from segmodels.backbones.ref import BackboneRef
from segmodels.backbones.registry import stuff_name

if TYPE_CHECKING:
    from segmodels.backbones.advice import MaskCutAdvice
    from segmodels.backbones.backbone import Backbone

Log = Callable[[str], None]


class Weights(dg.ConfigurableResource):
    """Where named backbone weights are cached."""

    cache_folder: str

    @property
    def folder(self) -> Path:
        """The cache folder as a path."""
        return Path(self.cache_folder).expanduser()

    def ref(self, name: str, device: str = "cpu", digest: str | None = None) -> BackboneRef:
        """Refer to a backbone of this cache, without looking for it."""
        return BackboneRef(name, device, self.folder, digest)

    def load(self, ref: BackboneRef, log: Log) -> "Backbone":
        """Load a backbone; official weights that are not cached yet are fetched.

        Args:
            ref: which backbone.
            log: receives lines of a download's progress.

        Raises:
            dg.Failure: the name is unknown, or its weights are unavailable or changed.
        """
        from segmodels.backbones.cache import locate_weights

        try:
            locate_weights(ref.name, ref.cache_folder, kind="vit", log=log)
            return ref.load()
        except (ValueError, RuntimeError, OSError) as error:
            raise dg.Failure(str(error)) from error

    def find(self, name: str, device: str, log: Log) -> BackboneRef:
        """Refer to the weights behind a name, by the digest that they have now.

        Raises:
            dg.Failure: see `load`.
        """
        return self.ref(name, device, self.load(self.ref(name), log).digest)


def maskcut_advice(features: Version) -> "MaskCutAdvice":
    """What the weights behind a version of dino_features recommend for MaskCut, at its image size."""
    from segmodels.backbones.advice import MaskCutAdvice

    stored = features.summary["backbone"]
    return MaskCutAdvice(stored["image_size"], stored["tau"], stored["center_keys"])


def dataset_backbone(features: Version, weights: Weights) -> BackboneRef:
    """The backbone that a version of dino_features was computed with."""
    digest = features.summary["backbone"]["digest"]
    return weights.ref(features.settings["backbone"], features.settings["device"], digest)


def stuff_backbone(features: Version, weights: Weights, log: Log) -> BackboneRef:
    """The backbone that STEGO learns from: that of dino_features, or its companion for stuff."""
    own = dataset_backbone(features, weights)
    name = stuff_name(own.name)
    return own if name == own.name else weights.find(name, own.device, log)
