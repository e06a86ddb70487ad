"""The one Definitions object: every asset, job, schedule, sensor and resource, by name."""

import dagster as dg

from assets.backbone import dino_backbone
from assets.checks import CHECKS
from assets.clusters import instance_clusters, instance_embeddings
from assets.evaluation import evaluation, predictions
from assets.features import Weights, dino_features
from assets.images import InputPaths, images
from assets.labels import pseudo_labels
from assets.masks import cutler_masks, maskcut_masks, thing_masks
from assets.sharding import ShardRunner
from assets.store import Dataset, Store
from assets.stuff import stuff_features, stuff_model, stuff_segments
from assets.training import TrainerLauncher, segmenter
from pipelines.jobs import JOBS
from pipelines.schedules import nightly_recluster
from pipelines.sensors import new_images
from pipelines.settings import ROOT, read_settings

settings = read_settings()
# Configured at launch, so that the store follows the dataset that a run config names.
dataset = Dataset.configure_at_launch(name=settings.dataset)

if not settings.dagster_home:
    dg.get_dagster_logger().warning(
        f'DAGSTER_HOME is not set, so this leaves no history: export DAGSTER_HOME="{ROOT}"'
    )

defs = dg.Definitions(
    assets=[
        images,
        dino_backbone,
        dino_features,
        maskcut_masks,
        cutler_masks,
        thing_masks,
        instance_embeddings,
        instance_clusters,
        stuff_features,
        stuff_model,
        stuff_segments,
        pseudo_labels,
        segmenter,
        predictions,
        evaluation,
    ],
    asset_checks=CHECKS,
    jobs=JOBS,
    schedules=[nightly_recluster],
    sensors=[new_images],
    resources={
        "dataset": dataset,
        "store": Store(root=str(settings.store), dataset=dataset),
        "inputs": InputPaths(images=settings.images, annotations=settings.annotations),
        "weights": Weights(cache_folder=str(settings.backbone_cache)),
        "shards": ShardRunner(engine=settings.engine),
        "trainer": TrainerLauncher(),
        "pipes": dg.PipesSubprocessClient(),
    },
)
