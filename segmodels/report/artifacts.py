"""What a finished run left behind, read but not yet scored."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from segmodels.datasets.ground_truth import GroundTruth
from segmodels.evaluation.predictions import Predictions
from segmodels.formats.decode import read_image
from segmodels.pictures.sheets import Picture


@dataclass(frozen=True)
class RunArtifacts:
    """Tables and predictions of one clustering's run.

    Attributes:
        images: the predicted images (IMAGES_SCHEMA).
        all_images: every image of the dataset (IMAGES_SCHEMA).
        things: thing masks (MASK_SCHEMA) with a column `cluster_id`, 0-based.
        discovered: MaskCut's masks (MASK_SCHEMA).
        predictions: of the images.
        ground_truth: of the images; None if there is none.
    """

    images: pa.Table
    all_images: pa.Table
    things: pa.Table
    discovered: pa.Table
    predictions: Predictions
    ground_truth: GroundTruth | None


class ImageReader:
    """Reads images by id; a table of a million images is searched, not converted to records."""

    def __init__(self, images: pa.Table) -> None:
        self._images = images
        ids = images["image_id"].to_numpy()
        self._order = np.argsort(ids)
        self._ids = ids[self._order]

    def __call__(self, image_id: int) -> Picture:
        row = int(self._order[np.searchsorted(self._ids, image_id)])
        record = self._images.slice(row, 1).to_pylist()[0]
        return read_image(record["source"], record["path"])
