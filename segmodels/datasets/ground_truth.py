"""Ground truth of a data set: things and stuff of its images, from COCO files of either kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kernels import rle
from segmodels.datasets.image_source import ImageSource, read_annotations
from segmodels.datasets.label_map import LabelMap, load_label_map
from segmodels.formats.arrow import column_values
from segmodels.formats.coco import CocoInstances, Instance
from segmodels.formats.coco_json import Category
from segmodels.formats.errors import InputError
from segmodels.formats.panoptic import CocoPanoptic, Segment

PanopticTruth = tuple[NDArray[np.int32], list[Segment]]


@dataclass(frozen=True)
class GroundTruth:
    """Annotations of the images of a data set; masks and maps are read on access.

    Attributes:
        thing_categories: By ascending id.
        stuff_categories: By ascending id, after the label map.
        instance_image_ids: Images whose things are annotated, with any or with none, in the
            order of the images table.
        panoptic_image_ids: Images with a panoptic map, likewise.
        label_map: Grouping of the stuff classes; None for the classes as annotated.
        merge_stuff_segments: Whether stuff segments of one class in an image are one segment.
    """

    thing_categories: tuple[Category, ...]
    stuff_categories: tuple[Category, ...]
    instance_image_ids: tuple[int, ...]
    panoptic_image_ids: tuple[int, ...]
    label_map: LabelMap | None
    merge_stuff_segments: bool
    _instances: dict[int, CocoInstances]
    _panoptic: dict[int, CocoPanoptic]

    def instances(
        self, image_id: int, panoptic: PanopticTruth | None = None
    ) -> list[Instance] | None:
        """Give the things of an image, crowds included; None where they are not annotated.

        Without an instance file they are the thing segments of the panoptic map, which is read
        unless it is passed.
        """
        if image_id in self._instances:
            return self._instances[image_id].instances(image_id)
        found = panoptic or self.panoptic(image_id)
        if found is None:
            return None
        return _instances_of_map(image_id, *found, {c.id for c in self.thing_categories})

    def panoptic(self, image_id: int) -> PanopticTruth | None:
        """Give the panoptic map, (H, W) int32 with 0 = void, and its segments.

        Returns:
            None where there is no map.

        Raises:
            AnnotationError: The PNG does not match its json.
        """
        file = self._panoptic.get(image_id)
        if file is None:
            return None
        segment_map, segments = file.segment_map(image_id), file.segments(image_id)
        if self.label_map is not None:
            segments = [_grouped(segment, file, self.label_map) for segment in segments]
        if self.merge_stuff_segments:
            stuff = {category.id for category in self.stuff_categories}
            return _merge_segments(segment_map, segments, stuff)
        return segment_map, segments


def load_ground_truth(
    sources: Sequence[ImageSource],
    images_table: pa.Table,
    *,
    stuff_grouping: str = "none",
    merge_stuff_segments: bool = False,
) -> GroundTruth:
    """Collect the ground truth of the images of a table.

    Args:
        sources: The sources of the table; those without annotations are skipped.
        images_table: IMAGES_SCHEMA; annotations of other images are ignored.
        stuff_grouping: Name of a label map: "none", or "coco15" for the 15 groups of COCO's stuff
            classes (U2Seg sec. 4.1).
        merge_stuff_segments: False is U2Seg's reading, in which two kinds of wall in one image
            stay two segments of the group wall; True makes them one.

    Raises:
        InputError: Annotation files are missing or contradict each other, or the label map does
            not exist or does not know a stuff class.
    """
    label_map = load_label_map(stuff_grouping)
    image_ids: list[int] = column_values(images_table, "image_id")
    wanted = set(image_ids)
    instances: dict[int, CocoInstances] = {}
    panoptic: dict[int, CocoPanoptic] = {}
    categories: dict[int, Category] = {}
    for source in sources:
        instance_file, panoptic_file = read_annotations(source)
        # The panoptic file comes last, as only it distinguishes stuff.
        for file in (instance_file, panoptic_file):
            if file is not None:
                _add_categories(categories, file.categories.values(), source)
        if instance_file is not None:
            instances |= dict.fromkeys(wanted & instance_file.images.keys(), instance_file)
        if panoptic_file is not None:
            panoptic |= dict.fromkeys(wanted & set(panoptic_file.image_ids), panoptic_file)
    stuff = [category for category in categories.values() if not category.isthing]
    if label_map is not None:
        stuff = list(label_map.group(stuff))
    things = [category for category in categories.values() if category.isthing]
    _refuse_shared_category_ids(things, stuff)
    return GroundTruth(
        thing_categories=tuple(sorted(things, key=lambda category: category.id)),
        stuff_categories=tuple(sorted(stuff, key=lambda category: category.id)),
        instance_image_ids=tuple(
            image_id for image_id in image_ids if image_id in instances or image_id in panoptic
        ),
        panoptic_image_ids=tuple(image_id for image_id in image_ids if image_id in panoptic),
        label_map=label_map,
        merge_stuff_segments=merge_stuff_segments,
        _instances=instances,
        _panoptic=panoptic,
    )


def _add_categories(
    categories: dict[int, Category], new: Iterable[Category], source: ImageSource
) -> None:
    for category in new:
        known = categories.get(category.id, category)
        if known.name != category.name:
            raise InputError(
                f"category {category.id} is {known.name!r} in one source and {category.name!r} in "
                f"the annotations of {source.images}; give all sources the same category ids"
            )
        categories[category.id] = category


def _refuse_shared_category_ids(things: Sequence[Category], stuff: Sequence[Category]) -> None:
    shared = {category.id for category in things} & {category.id for category in stuff}
    if shared:
        raise InputError(
            f"the thing class {min(shared)} has the id of a stuff class; "
            "set stuff_grouping to none or renumber the thing classes"
        )


def _grouped(segment: Segment, file: CocoPanoptic, label_map: LabelMap) -> Segment:
    if file.categories[segment.category_id].isthing:
        return segment
    return replace(segment, category_id=label_map.category_of[segment.category_id].id)


def _merge_segments(
    segment_map: NDArray[np.int32], segments: Sequence[Segment], stuff: set[int]
) -> PanopticTruth:
    """Merge the stuff segments of one class into the first of them."""
    first_of: dict[tuple[int, int], Segment] = {}
    kept: list[Segment] = []
    merged = segment_map.copy()
    for segment in segments:
        kind = (segment.category_id, segment.iscrowd)
        first = first_of.setdefault(kind, segment) if segment.category_id in stuff else segment
        if first is segment:
            kept.append(segment)
        else:
            merged[segment_map == segment.id] = first.id
    return merged, kept


def _instances_of_map(
    image_id: int, segment_map: NDArray[np.int32], segments: Sequence[Segment], things: set[int]
) -> list[Instance]:
    instances = []
    for segment in segments:
        if segment.category_id not in things:
            continue
        mask = segment_map == segment.id
        counts = rle.encode(mask[None])[0]
        x, y, width, height = rle.bbox_xywh([counts], *mask.shape)[0].tolist()
        instances.append(
            Instance(
                id=segment.id,
                image_id=image_id,
                category_id=segment.category_id,
                rle_counts=counts,
                iscrowd=bool(segment.iscrowd),
                area=float(mask.sum()),
                bbox=(x, y, width, height),
            )
        )
    return instances
