"""Jobs around the systems: backbones, clusterings to offer, copies of results."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.backbones.checks import dino_features_quality
from assets.stages.partitions import CLUSTERINGS
from assets.stages.store import Store
from segmodels.u2seg.clustering_key import ClusteringKey

pretrain_backbone = dg.define_asset_job(
    "pretrain_backbone",
    selection=["images", "dino_backbone"],
    description="Pre-train a DINO backbone on the dataset's own images, and check it.",
)
check_backbone = dg.define_asset_job(
    "check_backbone",
    selection=dg.AssetSelection.checks(dino_features_quality),
    description="Measure the backbone of dino_features on annotated images; computes no features.",
)


class CountsConfig(dg.Config):
    """Cluster counts to register as partitions."""

    counts: list[int] = Field(description="Cluster counts, for example [300, 800].")


@dg.op
def add_clusterings(context: dg.OpExecutionContext, config: CountsConfig) -> None:
    """Register cluster counts, so that the UI offers them as partitions."""
    try:
        keys = [str(ClusteringKey(count)) for count in config.counts]
    except ValueError as error:
        raise dg.Failure(str(error)) from error
    context.instance.add_dynamic_partitions(CLUSTERINGS.name, keys)
    context.log.info(f"registered {', '.join(keys)}")


@dg.job(description="Register cluster counts as partitions.")
def register_clusterings() -> None:
    """Register the counts of the run config."""
    add_clusterings()


class ExportConfig(dg.Config):
    """What to copy out of the store, and where to."""

    clustering: str = Field(description="Clustering key, for example k0300.")
    destination: str = Field(description="Folder that is made; it must not exist yet.")


@dg.op
def copy_results(context: dg.OpExecutionContext, config: ExportConfig, store: Store) -> None:
    """Copy the finished results of one clustering to a folder of its own."""
    from assets.evaluation.export import export_clustering

    destination = Path(config.destination).expanduser()
    for name in export_clustering(store, config.clustering, destination):
        context.log.info(f"exported {name} to {destination / name}")


@dg.job(description="Copy pseudo labels, model, predictions and report of one clustering.")
def export() -> None:
    """Copy the results of one clustering out of the store."""
    copy_results()


JOBS = [register_clusterings, pretrain_backbone, check_backbone, export]
