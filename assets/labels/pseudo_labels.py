"""Stage pseudo_labels: thing masks and stuff segments merged into panoptic labels."""

from pathlib import Path
from typing import Any

import dagster as dg

from assets.data.images import identity_of, train_images
from assets.stages.metadata import label_sheet, table_metadata
from assets.stages.partitions import CLUSTERINGS
from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import finished_shards
from assets.stages.store import Store, digest_of
from segmodels.formats.arrow import read_table
from segmodels.u2seg.labels import LabelSettings

CODE_VERSION = "1"
LabelConfig = config_for(
    LabelSettings,
    stuff_cover_limit="A stuff class becomes void when things cover more than this share of it.",
    keep_instance_free="Keep images without things (the released code drops them).",
)


@dg.asset(
    group_name="labels",
    deps=["images", "thing_masks", "instance_clusters", "stuff_model", "stuff_segments"],
    partitions_def=CLUSTERINGS.definition,
    code_version=CODE_VERSION,
    kinds={"arrow"},
)
def pseudo_labels(
    context: dg.AssetExecutionContext,
    config: LabelConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """Panoptic pseudo labels of the training images (U2Seg eq. 5)."""
    key = CLUSTERINGS.key_of(context)
    stage = store.stage("pseudo_labels", str(key))
    settings = resolve_settings(config, LabelSettings, stage)
    table = train_images(store)
    things = store.stage("thing_masks").require()
    clusters = store.stage("instance_clusters", str(key)).require()
    stuff = store.stage("stuff_segments").require()
    num_stuff = int(store.stage("stuff_model").require().settings["num_clusters"])

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.u2seg.label_export import write_pseudo_labels

        counts = write_pseudo_labels(
            folder,
            table,
            read_table(things.folder / "masks.arrow"),
            read_table(clusters.folder / "clusters.arrow"),
            finished_shards(stuff).table("segments.arrow"),
            num_things=key.num_clusters,
            num_stuff=num_stuff,
            settings=settings,
            log=context.log.info,
        )
        return {**counts, "num_things": key.num_clusters, "num_stuff": num_stuff}

    digest = digest_of(
        CODE_VERSION,
        settings,
        identity_of(table),
        things.digest,
        clusters.digest,
        stuff.digest,
        num_stuff,
    )
    version = materialise(stage, digest, settings, compute, context.log.info)
    return result(
        version,
        {
            **table_metadata(read_table(version.folder / "segments.arrow")),
            **version.summary,
            "preview": label_sheet(table, version.folder),
        },
    )
