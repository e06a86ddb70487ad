"""Stage dino_features: keys and CLS of every image, by shard."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg

from assets.data.images import identity_of, read_images, shards_of
from assets.stages.run import result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stages.store import Store, digest_of
from segmodels.backbones.feature_shards import (
    FeatureSettings,
    FeatureShard,
    extract_shard,
    open_features,
)

CODE_VERSION = "1"
FeatureConfig = config_for(
    FeatureSettings,
    backbone="embedded, dino_vits16, dino_vits8, dino_vitb16, dino_vitb8, dinov2_vitb14 and others "
    "(docs/backbone.md), or a checkpoint's path; @sha256:<digest> after it accepts that file alone.",
    image_size="Side of the square that images are resized to, px; 0: the weights' own.",
)


class Weights(dg.ConfigurableResource):
    """Where named backbone weights are cached."""

    cache_folder: str

    @property
    def folder(self) -> Path:
        """The cache folder as a path."""
        return Path(self.cache_folder).expanduser()

    def describe(self, name: str, log: Callable[[str], None]) -> dict[str, Any]:
        """What a backbone's weights say of themselves: digest, and settings for MaskCut.

        Args:
            name: of a backbone; official weights that are not cached yet are fetched.
            log: takes lines of a download's progress.

        Raises:
            dg.Failure: the name is unknown, or its weights are not at hand.
        """
        from segmodels.backbones.feature_shards import cached_backbone
        from segmodels.backbones.registry import locate_weights

        try:
            locate_weights(name, self.folder, log=log)
            backbone = cached_backbone(name, "cpu", self.folder)
        except (ValueError, RuntimeError, OSError) as error:
            raise dg.Failure(str(error)) from error
        return {
            "digest": backbone.digest,
            "patch_size": backbone.patch_size,
            "image_size": backbone.image_size,
            "tau": backbone.tau,
            "center_keys": backbone.center_keys,
        }


@dataclass(frozen=True)
class BackboneChoice:
    """The backbone of a dataset, as dino_features used it; later stages use it or its companion.

    Attributes:
        name: named backbone or checkpoint path.
        device: "auto", "cpu" or "cuda".
        digest: SHA-256 of the weights.
        image_size: side of the square that keys were computed at, px.
        tau: affinity threshold recommended by the weights.
        center_keys: whether the weights recommend keys centred per image.
    """

    name: str
    device: str
    digest: str
    image_size: int
    tau: float
    center_keys: bool


def backbone_choice(store: Store) -> BackboneChoice:
    """The backbone that this dataset's features were computed with."""
    version = store.stage("dino_features").require()
    return BackboneChoice(
        name=version.settings["backbone"],
        device=version.settings["device"],
        **version.summary["backbone"],
    )


def stuff_backbone_choice(
    store: Store, weights: Weights, log: Callable[[str], None]
) -> BackboneChoice:
    """The backbone whose tokens stuff is learned from: the dataset's, or its companion for that."""
    from segmodels.backbones.registry import stuff_name

    own = backbone_choice(store)
    name = stuff_name(own.name)
    if name == own.name:
        return own
    return replace(own, name=name, digest=weights.describe(name, log)["digest"])


@dg.asset(
    group_name="features", deps=["images"], code_version=CODE_VERSION, kinds={"zarr"}, pool="gpu"
)
def dino_features(
    context: dg.AssetExecutionContext,
    config: FeatureConfig,  # type: ignore[valid-type]
    store: Store,
    weights: Weights,
    shards: ShardRunner,
) -> dg.MaterializeResult[None]:
    """Last-block keys (float16) and CLS (float32) of every image."""
    stage = store.stage("dino_features")
    settings = resolve_settings(config, FeatureSettings, stage)
    described = weights.describe(settings.backbone, context.log.info)
    described["image_size"] = settings.image_size or described["image_size"]
    patch_size = described.pop("patch_size")
    if described["image_size"] % patch_size:
        raise dg.Failure(
            f"image_size must be a multiple of the patch size {patch_size}, got "
            f"{described['image_size']}"
        )
    table = read_images(store.stage("images").require())
    tasks = [
        ShardTask(
            shard,
            digest_of(CODE_VERSION, settings, described, identity_of(rows)),
            extract_shard,
            FeatureShard(rows, settings, weights.folder),
        )
        for shard, rows in shards_of(table).items()
    ]
    version, computed = materialise_shards(
        stage,
        tasks,
        shards,
        settings=settings,
        log=context.log.info,
        facts={"backbone": described},
    )
    first = open_features(finished_shards(version).in_order[0])
    return result(
        version,
        {
            "images": version.summary["totals"]["images"],
            "shards": len(tasks),
            "shards_computed": computed,
            "keys_shape": str(first.keys.shape[1:]),
            "backbone_sha256": described["digest"],
        },
    )
