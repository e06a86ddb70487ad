"""Predict images with a trained segmenter, one at a time, and write the predictions folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kernels import rle
from segmodels.detector.panoptic_merge import merge_panoptic
from segmodels.detector.pseudo_labels import cluster_categories
from segmodels.detector.registration import quiet_third_parties, register
from segmodels.detector.settings import PredictionSettings
from segmodels.detector.training import CONFIG_FILE, last_checkpoint
from segmodels.engine.progress import Progress
from segmodels.formats.coco import Result, write_results
from segmodels.formats.panoptic import PanopticWriter
from segmodels.formats.segment_png import png_name, write_png


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction for one image, at the image's own size.

    Attributes:
        instances: by falling score; none has an empty mask.
        semantic: (H, W) uint8, 0 = thing, 1..S = stuff.
    """

    instances: list[Result]
    semantic: NDArray[np.uint8]


class Segmenter:
    """A trained segmenter.

    Args:
        work_dir: work directory of a training run.
        settings: how to predict; None takes the training configuration's.
        device: torch device.

    Raises:
        FileNotFoundError: the work directory holds no checkpoint.
    """

    def __init__(
        self,
        work_dir: str | Path,
        *,
        settings: PredictionSettings | None = None,
        device: str = "cpu",
    ) -> None:
        register()
        from mmcv.transforms import Compose
        from mmdet.registry import MODELS
        from mmengine.config import Config
        from mmengine.registry import DefaultScope

        from segmodels.detector.train_config import prediction_pipeline

        weights = last_checkpoint(work_dir)
        if weights is None:
            raise FileNotFoundError(f"{work_dir} holds no checkpoint: train first")
        config = Config.fromfile(Path(work_dir) / CONFIG_FILE)
        self.settings = (settings or PredictionSettings()).resolve(config.prediction)
        self.num_things: int = config.model.roi_head.mask_head.num_classes
        self.num_stuff: int = config.model.semantic_head.num_stuff_classes
        rcnn = config.model.test_cfg.rcnn
        rcnn.score_thr = self.settings.score_threshold
        rcnn.nms.iou_threshold = self.settings.nms_threshold
        rcnn.max_per_img = self.settings.max_detections
        with quiet_third_parties(), DefaultScope.overwrite_default_scope("mmdet"):
            self._model = MODELS.build(config.model)
            self._pipeline = Compose(
                prediction_pipeline(self.settings.short_side, self.settings.long_side)
            )
        state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
        self._model.load_state_dict(state)
        self._model.to(torch.device(device)).eval()

    @torch.inference_mode()
    def predict(self, image_id: int, source: str, path: str) -> ImagePrediction:
        """Predict one image, given by these columns of the images table.

        Raises:
            UnreadableImageError: the image cannot be read.
        """
        from segmodels.detector.panoptic_model import label_map

        packed = self._pipeline({"source": source, "img_path": path})
        batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
        with quiet_third_parties():
            sample = self._model.test_step(batch)[0]
        height, width = sample.ori_shape
        padded = sample.batch_input_shape
        labels = label_map(sample.semantic_logits, sample.img_shape, padded, (height, width))
        found = sample.pred_instances
        instances = list(_instances(image_id, found.to("cpu"), height, width))
        return ImagePrediction(instances, labels.cpu().numpy())


def predict_panoptic(
    images: pa.Table,
    work_dir: str | Path,
    out_folder: str | Path,
    *,
    settings: PredictionSettings | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> dict[str, int]:
    """Predict the images of a table and write the predictions folder.

    The folder gets ``instances.json`` (COCO results), ``panoptic.json`` with ``panoptic/`` and
    ``semantic/`` (PNG), all at the images' own sizes and also for images without any prediction.
    Memory does not grow with the size of an image times its number of instances.

    Args:
        images: images table.
        work_dir: work directory of a training run.
        out_folder: the predictions folder.
        settings: see :class:`Segmenter`.
        device: torch device.
        on_progress: takes {image, total, instances} after each image.

    Returns:
        the numbers of ``images`` and ``instances``.
    """
    segmenter = Segmenter(work_dir, settings=settings, device=device)
    categories = cluster_categories(segmenter.num_things, segmenter.num_stuff)
    rows = images.select(["image_id", "source", "path"]).to_pylist()
    counts = {"images": len(rows), "instances": 0}
    out = Path(out_folder)
    with PanopticWriter(out / "panoptic.json", out / "panoptic", categories) as writer:
        results = _predict_rows(rows, segmenter, out, writer, counts, on_progress)
        write_results(out / "instances.json", results)
    return counts


def _predict_rows(
    rows: list[dict[str, Any]],
    segmenter: Segmenter,
    out: Path,
    writer: PanopticWriter,
    counts: dict[str, int],
    on_progress: Progress | None,
) -> Iterator[Result]:
    """Predict image by image: write the maps, count and yield the instances."""
    for number, row in enumerate(rows, start=1):
        image_id = row["image_id"]
        prediction = segmenter.predict(image_id, row["source"], row["path"])
        height, width = prediction.semantic.shape
        settings = segmenter.settings
        segment_map, segments = merge_panoptic(
            prediction.instances,
            prediction.semantic,
            num_things=segmenter.num_things,
            score_threshold=settings.instance_confidence,
            overlap_threshold=settings.overlap,
            min_stuff_pixels=settings.min_stuff_pixels(height, width),
        )
        writer.add(image_id, row["path"], segment_map, segments)
        write_png(out / "semantic" / png_name(image_id), prediction.semantic)
        counts["instances"] += len(prediction.instances)
        yield from prediction.instances
        if on_progress is not None:
            on_progress(
                {"image": number, "total": len(rows), "instances": len(prediction.instances)}
            )


def _instances(image_id: int, found: Any, height: int, width: int) -> Iterator[Result]:
    """Paste and encode the masks of one image, one at a time."""
    for box, score, label, probabilities in zip(
        found.bboxes, found.scores, found.labels, found.mask_probabilities, strict=True
    ):
        mask = paste_mask(probabilities, box, height, width)
        if not mask.any():
            continue
        x1, y1, x2, y2 = (float(side) for side in box)
        yield Result(
            image_id=image_id,
            category_id=int(label) + 1,
            score=float(score),
            rle_counts=rle.encode(mask[None])[0],
            height=height,
            width=width,
            bbox=(x1, y1, x2 - x1, y2 - y1),
        )


def paste_mask(probabilities: Tensor, box: Tensor, height: int, width: int) -> NDArray[np.bool_]:
    """Resize a mask predicted inside a box into the image (Mask R-CNN, threshold 0.5).

    Args:
        probabilities: (m, m) float in 0..1, covering the box.
        box: (4,) xyxy in image pixels.
        height: of the image, px.
        width: of the image, px.

    Returns:
        (height, width) bool; pixel centres outside the box are False.
    """
    x1, y1, x2, y2 = (float(side) for side in box)
    left, top = max(int(np.floor(x1)), 0), max(int(np.floor(y1)), 0)
    right, bottom = min(int(np.ceil(x2)), width), min(int(np.ceil(y2)), height)
    mask = np.zeros((height, width), dtype=bool)
    if right <= left or bottom <= top or x2 <= x1 or y2 <= y1:
        return mask
    across = (torch.arange(left, right) + 0.5 - x1) / (x2 - x1) * 2 - 1
    down = (torch.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * 2 - 1
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
    values = functional.grid_sample(probabilities[None, None], grid[None], align_corners=False)
    mask[top:bottom, left:right] = (values[0, 0] >= 0.5).numpy()
    return mask
