"""Stage pseudo_labels: thing masks and stuff segments merged into panoptic labels."""

from pathlib import Path
from typing import Any

from assets.clusters.instance_clusters import instance_clusters
from assets.data.images import identity_of, images, shards_of, train_images
from assets.masks.thing_masks import thing_masks
from assets.stages.metadata import label_sheet, table_metadata
from assets.stages.partitions import CLUSTERINGS
from assets.stages.shards import finished_shards
from assets.stages.stage import Result, StageRun, result, stage
from assets.stuff.stuff_model import stuff_model
from assets.stuff.stuff_segments import stuff_segments
from segmodels.formats.arrow import read_table
from segmodels.u2seg.labels import LabelSettings


@stage(
    group="labels",
    inputs=(images, thing_masks, instance_clusters, stuff_model, stuff_segments),
    settings=LabelSettings,
    described={
        "stuff_cover_limit": "A stuff class becomes void when things cover more than this share "
        "of it.",
        "keep_instance_free": "Keep images without things (the released code drops them).",
    },
    version="1",
    partitions=CLUSTERINGS,
    kinds={"arrow"},
)
def pseudo_labels(run: StageRun[LabelSettings]) -> Result:
    """Panoptic pseudo labels of the training images (U2Seg eq. 5)."""
    table = train_images(run.input(images))
    things, clusters = run.input(thing_masks), run.joined(instance_clusters, thing_masks)
    stuff = run.input(stuff_segments)
    segments = finished_shards(stuff)
    segments.require(shards_of(table), "stuff_segments")
    num_stuff = int(run.input(stuff_model).settings["num_clusters"])

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.u2seg.label_export import write_pseudo_labels

        counts = write_pseudo_labels(
            folder,
            table,
            finished_shards(things).table("masks.arrow"),
            read_table(clusters.folder / "clusters.arrow"),
            segments.table("segments.arrow"),
            num_things=run.key.num_clusters,
            num_stuff=num_stuff,
            settings=run.settings,
            log=run.log,
        )
        return {**counts, "num_things": run.key.num_clusters, "num_stuff": num_stuff}

    version = run.materialise(
        compute, identity_of(table), things.digest, clusters.digest, stuff.digest, num_stuff
    )
    return result(
        version,
        {
            **table_metadata(read_table(version.folder / "segments.arrow")),
            **version.summary,
            "preview": label_sheet(table, version.folder),
        },
    )
