"""The one Definitions object: every asset, job, schedule, sensor and resource, by name."""

import warnings

import dagster as dg

from assets.backbones.checks import CHECKS
from assets.backbones.dino_backbone import dino_backbone
from assets.backbones.dino_features import dino_features
from assets.backbones.weights import Weights
from assets.clusters.instance_clusters import instance_clusters
from assets.data.images import InputPaths, images
from assets.detector.predictions import predictions
from assets.detector.segmenter import TrainerLauncher, segmenter
from assets.evaluation.evaluation import evaluation
from assets.labels.pseudo_labels import pseudo_labels
from assets.masks.cutler_masks import cutler_masks
from assets.masks.instance_embeddings import instance_embeddings
from assets.masks.maskcut_masks import maskcut_masks
from assets.masks.thing_masks import thing_masks
from assets.stages.shards import ShardRunner
from assets.stages.store import Store, dataset_of_stages
from assets.stuff.stuff_features import stuff_features
from assets.stuff.stuff_model import stuff_model
from assets.stuff.stuff_segments import stuff_segments
from pipelines.executor import run_executor
from pipelines.jobs import u2seg, upkeep
from pipelines.schedules import nightly_recluster
from pipelines.sensors import dead_runs, new_images
from pipelines.settings import ROOT, read_settings

ASSETS = [
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
]

# Dagster's Pipes call a hook of Dagster's own that is marked as a preview.
warnings.filterwarnings("ignore", ".*expected_writer_count", dg.PreviewWarning)

settings = read_settings()
stages = [asset.key.to_user_string() for asset in ASSETS]
# Configured at launch, so that the store follows the dataset that a run config names.
dataset = dataset_of_stages(stages).configure_at_launch(name=settings.dataset)

if not settings.dagster_home:
    dg.get_dagster_logger().warning(
        f'DAGSTER_HOME is not set, so this leaves no history: export DAGSTER_HOME="{ROOT}"'
    )

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=CHECKS,
    jobs=[*u2seg.JOBS, *upkeep.JOBS],
    schedules=[nightly_recluster],
    sensors=[new_images, dead_runs],
    executor=run_executor,
    resources={
        "dataset": dataset,
        "store": Store(root=str(settings.store), dataset=dataset),
        "inputs": InputPaths(images=settings.images, annotations=settings.annotations),
        "weights": Weights(cache_folder=str(settings.backbone_cache)),
        "shards": ShardRunner(engine=settings.engine),
        "trainer": TrainerLauncher(),
    },
)
