"""How good a backbone is for this pipeline: do its keys cut objects out, do alike objects lie near.

Any source of patch features is measured the same way, by what MaskCut makes of its keys without a
CRF and by the classes of neighbouring instance vectors. No label reaches the features themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kernels import rle
from kernels.affinity import center_keys
from kernels.ncut import maskcut
from segmodels.dino.backbone import Backbone
from segmodels.dino.pixels import normalised_pixels, resize_square
from segmodels.evaluation.average_precision import Row, average_precision, merge_classes
from segmodels.evaluation.evidence import truth_rows
from segmodels.formats.ground_truth import GroundTruth
from segmodels.u2seg.embeddings import EmbeddingSettings, embed_instances
from segmodels.u2seg.maskcut import MaskCutSettings, discover_masks

NEIGHBOURS = 5
DETECTIONS = (3, 10)
# COCO's bound of "small": a crop of fewer pixels shows no class.
SMALLEST_AREA = 32**2

Keys = NDArray[np.float32]
Masks = NDArray[np.bool_]


class PatchFeatures(Protocol):
    """What can be measured; image (H, W, 3) uint8 RGB.

    Attributes:
        image_size, tau, center_keys: what MaskCut uses with it.
    """

    image_size: int
    tau: float
    center_keys: bool

    def keys(self, image: NDArray[np.uint8]) -> Keys:
        """Features (g, g, d) of the image's patches."""

    def embed(self, image: NDArray[np.uint8], masks: Masks) -> NDArray[np.float32]:
        """One vector (m, d) of each instance, masks (m, H, W)."""


class BackboneFeatures:
    """A backbone as it is used by default: keys at its own image size, CLS of masked boxes."""

    def __init__(self, backbone: Backbone) -> None:
        self.image_size = backbone.image_size
        self.tau = backbone.tau
        self.center_keys = backbone.center_keys
        self._backbone = backbone

    def keys(self, image: NDArray[np.uint8]) -> Keys:
        """See PatchFeatures."""
        pixels = normalised_pixels(resize_square(image, self.image_size))
        keys: Keys = self._backbone.extract(torch.from_numpy(pixels)[None]).keys[0].cpu().numpy()
        return keys

    def embed(self, image: NDArray[np.uint8], masks: Masks) -> NDArray[np.float32]:
        """See PatchFeatures."""
        return embed_instances(image, masks, self._backbone, EmbeddingSettings())


@dataclass(frozen=True)
class ObjectOverlaps:
    """IoU of each photograph of one object: of the first mask, and of the best of three."""

    first: NDArray[np.float64]
    best: NDArray[np.float64]


@dataclass(frozen=True)
class InstanceQuality:
    """Scores on annotated instances, in percent.

    Attributes:
        ar3, ar10: class-agnostic average recall (IoU 0.5 to 0.95) of MaskCut's first masks.
        ap50: class-agnostic average precision of ten masks, the first cut first.
        purity: share of an instance's 5 nearest neighbours, by cosine, of its own class; instances
            of its own image do not count. NaN where no class occurs in two images.
    """

    ar3: float
    ar10: float
    ap50: float
    purity: float


def object_overlaps(
    features: PatchFeatures, images: Iterable[NDArray[np.uint8]], masks: Iterable[Masks]
) -> ObjectOverlaps:
    """Cut photographs of one object each.

    Args:
        features: what is measured.
        images: (H, W, 3) uint8 RGB each.
        masks: (H, W) bool each, the true object.
    """
    keys = map(features.keys, images)
    return keys_overlaps(keys, masks, tau=features.tau, center=features.center_keys)


def keys_overlaps(
    keys: Iterable[Keys], masks: Iterable[Masks], *, tau: float, center: bool
) -> ObjectOverlaps:
    """Do as `object_overlaps` for keys (g, g, d) that are at hand."""
    scores = []
    for key, mask in zip(keys, masks, strict=True):
        truth = patch_truth(mask, key.shape[0])
        chosen = center_keys(key) if center else key
        found = maskcut(chosen.reshape(truth.size, -1), truth.shape, tau=tau).masks
        overlaps = [overlap(one, truth) for one in found]
        scores.append((overlaps[0], max(overlaps)))
    first, best = np.array(scores, np.float64).reshape(-1, 2).T
    return ObjectOverlaps(first, best)


def patch_truth(mask: Masks, grid: int) -> Masks:
    """Reduce a mask to the (grid, grid) patches that it covers by more than half."""
    cover = Image.fromarray(mask.astype(np.float32)).resize((grid, grid), Image.Resampling.BOX)
    return np.asarray(cover) > 0.5


def overlap(a: Masks, b: Masks) -> float:
    """IoU of two masks of one shape; 1 where both are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def instance_quality(
    features: PatchFeatures,
    images: Sequence[tuple[int, NDArray[np.uint8]]],
    ground_truth: GroundTruth,
    on_progress: Callable[[str], None] = lambda _: None,
) -> InstanceQuality | None:
    """Measure recall, precision and purity on annotated photographs.

    Args:
        features: what is measured.
        images: image id and (H, W, 3) uint8 RGB; those without annotations are passed over.
        ground_truth: true instances.
        on_progress: receives a line now and then.

    Returns:
        The scores, or None where nothing is annotated.
    """
    settings = MaskCutSettings(
        image_size=features.image_size,
        tau=features.tau,
        center_keys=features.center_keys,
        max_masks=DETECTIONS[-1],
        use_crf=False,
    )
    found: list[Row] = []
    truths: list[Row] = []
    sizes: dict[int, tuple[int, int]] = {}
    vectors, class_ids, image_ids = [], [], []
    for number, (image_id, image) in enumerate(images, start=1):
        size = (image.shape[0], image.shape[1])
        rows = truth_rows(ground_truth, image_id, size)
        if rows is None:
            continue
        sizes[image_id] = size
        truths += rows
        found += _found_rows(image_id, image, features, settings)
        kept = [row for row in rows if not row["iscrowd"] and row["area"] >= SMALLEST_AREA]
        if kept:
            masks = rle.decode([row["segmentation"]["counts"].encode() for row in kept], *size)
            vectors.append(features.embed(image, masks))
            class_ids += [row["category_id"] for row in kept]
            image_ids += [image_id] * len(kept)
        if number % 50 == 0:
            on_progress(f"backbone quality: {number} of {len(images)} images")
    scores = average_precision(
        merge_classes(found), merge_classes(truths), sizes, kind="mask", max_detections=DETECTIONS
    )
    if scores is None:
        return None
    purity = float("nan")
    if vectors:
        purity = neighbour_purity(np.concatenate(vectors), np.array(class_ids), np.array(image_ids))
    return InstanceQuality(scores.recall[3], scores.recall[10], scores.ap50, 100 * purity)


def neighbour_purity(
    vectors: NDArray[np.floating],
    class_ids: NDArray[np.integer],
    image_ids: NDArray[np.integer],
    k: int = NEIGHBOURS,
) -> float:
    """Mean share of the nearest neighbours from other images that have an instance's class.

    Args:
        vectors: (m, d), compared by cosine.
        class_ids: (m,).
        image_ids: (m,); neighbours within one image share its light and place, and do not count.
        k: neighbours.

    Returns:
        A share over the instances whose class occurs in another image; NaN when there is none.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    elsewhere = image_ids[:, None] != image_ids
    alike = (class_ids[:, None] == class_ids) & elsewhere
    asked = alike.any(axis=1)
    if not asked.any():
        return float("nan")
    similarity = np.where(elsewhere, unit @ unit.T, -np.inf)
    neighbours = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(alike, neighbours, axis=1)[asked].mean())


def _found_rows(
    image_id: int, image: NDArray[np.uint8], features: PatchFeatures, settings: MaskCutSettings
) -> list[Row]:
    """MaskCut's masks as COCO result rows, earlier cuts with the higher score."""
    found = discover_masks([image], features.keys(image)[None], settings)[0].masks
    if not found:
        return []
    counts = rle.encode(np.stack([one.mask for one in found]))
    boxes = rle.bbox_xywh(counts, *image.shape[:2]).tolist()
    return [
        {
            "image_id": image_id,
            "category_id": 1,
            "bbox": box,
            "score": 1 / (1 + one.repetition),
            "segmentation": {"size": list(image.shape[:2]), "counts": count.decode("ascii")},
        }
        for one, count, box in zip(found, counts, boxes, strict=True)
    ]
