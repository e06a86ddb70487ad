"""Reads what a run left in the store."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from assets.data.images import dataset_sources, read_images
from assets.stages.shards import finished_shards
from assets.stages.store import Version
from segmodels.formats.arrow import read_table

if TYPE_CHECKING:
    from segmodels.report.artifacts import RunArtifacts


def run_artifacts(upstream: Mapping[str, Version], images: pa.Table) -> "RunArtifacts":
    """Read the artifacts of a run.

    Args:
        upstream: the versions that the scores depend on, by stage.
        images: the predicted images, or some of them (IMAGES_SCHEMA).
    """
    from segmodels.evaluation.predictions import Predictions
    from segmodels.report.artifacts import RunArtifacts
    from segmodels.u2seg.label_export import with_clusters

    labels = upstream["pseudo_labels"].summary
    return RunArtifacts(
        images=images,
        all_images=read_images(upstream["images"]),
        things=with_clusters(
            finished_shards(upstream["thing_masks"]).table("masks.arrow"),
            read_table(upstream["instance_clusters"].folder / "clusters.arrow"),
        ),
        discovered=finished_shards(upstream["maskcut_masks"]).table("masks.arrow"),
        predictions=Predictions(
            upstream["predictions"].folder, labels["num_things"], labels["num_stuff"]
        ),
        ground_truth=dataset_sources(upstream["images"]).ground_truth(images),
    )
