"""Stage pseudo_labels: thing masks and stuff segments merged into panoptic labels, by shard."""

from pathlib import Path

from assets.clusters.instance_clusters import instance_clusters
from assets.data.images import identity_of, images, shards_of, train_images
from assets.masks.thing_masks import thing_masks
from assets.stages.metadata import label_sheet
from assets.stages.partitions import CLUSTERINGS
from assets.stages.shards import ShardRunner, ShardSet, finished_shards, reduced_folder
from assets.stages.stage import Result, StageRun, Work, result, stage
from assets.stuff.stuff_model import stuff_model
from assets.stuff.stuff_segments import stuff_segments
from segmodels.u2seg.label_export import LabelShard, label_shard
from segmodels.u2seg.label_index import write_label_index
from segmodels.u2seg.labels import LabelSettings


@stage(
    group="labels",
    inputs=(images, thing_masks, instance_clusters, stuff_model, stuff_segments),
    settings=LabelSettings,
    described={
        "stuff_cover_limit": "A stuff class becomes void when things cover more than this share "
        "of it.",
        "keep_instance_free": "Keep images without things (the released code drops them).",
        "long_side_limit": "Larger images are merged at this longest side, px.",
    },
    version="2",
    partitions=CLUSTERINGS,
    kinds={"arrow"},
)
def pseudo_labels(run: StageRun[LabelSettings], shards: ShardRunner) -> Result:
    """Panoptic pseudo labels of the training images (U2Seg eq. 5)."""
    clusters = run.joined(instance_clusters, thing_masks)
    things = finished_shards(run.input(thing_masks))
    segments = finished_shards(run.input(stuff_segments))
    rows_of = shards_of(train_images(run.input(images)))
    things.require(rows_of, "thing_masks")
    segments.require(rows_of, "stuff_segments")
    num_things = run.key.num_clusters
    num_stuff = int(run.input(stuff_model).settings["num_clusters"])
    work = {
        shard: Work(
            LabelShard(
                rows,
                things.folders[shard] / "masks.arrow",
                clusters.folder / "clusters.arrow",
                segments.folders[shard] / "segments.arrow",
                num_things,
                num_stuff,
                run.settings,
            ),
            (
                identity_of(rows),
                things.digests[shard],
                clusters.digest,
                segments.digests[shard],
                num_stuff,
            ),
        )
        for shard, rows in rows_of.items()
    }

    def reduce(done: ShardSet, folder: Path) -> None:
        write_label_index(done.folders, folder, num_things, num_stuff)

    version, computed = run.materialise_shards(
        label_shard,
        work,
        shards,
        facts={"num_things": num_things, "num_stuff": num_stuff},
        reduce=reduce,
    )
    return result(
        version,
        {
            **version.summary["totals"],
            "shards_computed": computed,
            "labels": str(reduced_folder(version)),
            "preview": label_sheet(finished_shards(version).folders),
        },
    )
