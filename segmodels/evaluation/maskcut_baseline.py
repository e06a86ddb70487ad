"""MaskCut run directly on the scored images: what the trained model has to beat."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segmodels.datasets.ground_truth import GroundTruth
from segmodels.evaluation.metrics.average_precision import mask_results
from segmodels.evaluation.protocols.evaluate import class_agnostic_ap


def add_maskcut_baseline(
    metrics: dict[str, Any], discovered: pa.Table, ground_truth: GroundTruth, images: pa.Table
) -> None:
    """Add `metrics["maskcut_baseline"]`: class-agnostic scores of MaskCut's own masks.

    Args:
        metrics: of `evaluate`; changed in place.
        discovered: MaskCut's masks (MASK_SCHEMA); those of other images are passed over.
        ground_truth: true instances.
        images: the scored images (IMAGES_SCHEMA).
    """
    own = discovered.filter(pc.is_in(discovered["image_id"], images["image_id"]))
    scores = class_agnostic_ap(mask_results(own), ground_truth, images)
    if scores:
        metrics["maskcut_baseline"] = scores
