"""Jobs of U2Seg: the whole chain and its parts."""

import dagster as dg

DISCOVER = ["images", "dino_features", "maskcut_masks", "cutler_masks", "thing_masks"]
# What every image needs before it can be clustered and labelled; finished shards are kept.
EMBED = ["instance_embeddings", "stuff_features", "stuff_segments"]
TRAIN = ["segmenter", "predictions", "evaluation"]
RECLUSTER = [*EMBED, "instance_clusters", "pseudo_labels", *TRAIN]


def stages_alone(*names: str) -> dg.AssetSelection:
    """Assets without their checks, which Dagster would select with them."""
    return dg.AssetSelection.assets(*names).without_checks()


u2seg = dg.define_asset_job(
    "u2seg",
    selection=stages_alone(*DISCOVER, "stuff_model", *RECLUSTER),
    description="Everything: from images to a scored panoptic model.",
)
discover = dg.define_asset_job(
    "discover",
    selection=stages_alone(*DISCOVER),
    description="From images to thing masks.",
)
recluster = dg.define_asset_job(
    "recluster",
    selection=stages_alone(*RECLUSTER),
    description="One more cluster count on the thing masks and the stuff model that are there.",
)
train_and_evaluate = dg.define_asset_job(
    "train_and_evaluate",
    selection=stages_alone(*TRAIN),
    description="Train and score anew on the pseudo labels of one cluster count.",
)

JOBS = [u2seg, discover, recluster, train_and_evaluate]
