"""Reads a folder of predictions: COCO results, panoptic maps and semantic maps."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.evaluation.metrics.average_precision import Row
from segmodels.formats.errors import InputError
from segmodels.formats.panoptic import CocoPanoptic, Segment, read_panoptic
from segmodels.formats.segment_png import png_name


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model, with clusters as categories.

    Attributes:
        folder: has instances.json, and optionally panoptic.json with panoptic/, and semantic/.
        num_things: K; results and thing segments have the categories 1..K.
        num_stuff: S; stuff segments have K+1..K+S, semantic maps 0 = thing and 1..S.
    """

    folder: Path
    num_things: int
    num_stuff: int

    @cached_property
    def results(self) -> dict[int, list[Row]]:
        """COCO result rows by image id.

        Raises:
            InputError: there is no result file, or a category is no cluster.
        """
        path = self.folder / "instances.json"
        if not path.is_file():
            raise InputError(f"{path} does not exist; materialise the predictions first")
        by_image: dict[int, list[Row]] = {}
        for row in json.loads(path.read_bytes()):
            if not 1 <= row["category_id"] <= self.num_things:
                raise InputError(
                    f"{path} has category {row['category_id']}, but there are "
                    f"{self.num_things} thing clusters; predict with the model of this clustering"
                )
            by_image.setdefault(row["image_id"], []).append(row)
        return by_image

    @cached_property
    def panoptic(self) -> CocoPanoptic | None:
        """The panoptic file, None if there is none."""
        path = self.folder / "panoptic.json"
        return read_panoptic(path) if path.is_file() else None

    @cached_property
    def has_semantic(self) -> bool:
        """Whether the folder has semantic maps."""
        return (self.folder / "semantic").is_dir()

    def semantic_map(self, image_id: int) -> NDArray[np.uint8]:
        """Semantic map of one image: (H, W) uint8, 0 = thing, 1..S = stuff cluster.

        Raises:
            InputError: the image has no map.
        """
        path = self.folder / "semantic" / png_name(image_id)
        try:
            with Image.open(path) as image:
                return np.asarray(image)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error}); predict again") from error

    def segments(self, image_id: int) -> tuple[NDArray[np.int32], list[Segment]]:
        """Panoptic prediction of one image.

        Returns:
            (H, W) int32 segment ids, 0 = void; and the segments, whose categories are clusters.

        Raises:
            InputError: the image was not predicted, or a category is no cluster.
        """
        if self.panoptic is None or image_id not in self.panoptic.image_ids:
            raise InputError(
                f"{self.folder} has no panoptic map of image {image_id}; predict again"
            )
        top = self.num_things + self.num_stuff
        segments = self.panoptic.segments(image_id)
        for segment in segments:
            if not 1 <= segment.category_id <= top:
                raise InputError(
                    f"{self.panoptic.json_path} has category {segment.category_id}, but there "
                    f"are {top} clusters; predict with the model of this clustering"
                )
        return self.panoptic.segment_map(image_id), segments
