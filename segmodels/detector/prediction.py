"""Apply a trained segmenter to images and write its predictions, one image at a time."""

from collections.abc import Callable, Iterator, Sequence
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
from segmodels.detector.panoptic_merge import ScoredInstance, merge_panoptic
from segmodels.detector.registration import quiet_third_parties, register
from segmodels.detector.settings import PredictionSettings
from segmodels.detector.training import CONFIG_FILE, last_checkpoint
from segmodels.formats.arrow import read_table
from segmodels.formats.coco import Result, write_results
from segmodels.formats.coco_json import Category
from segmodels.formats.panoptic import PanopticWriter, png_name, write_png

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ImagePrediction:
    """What a segmenter finds in one image, at the image's own size.

    Attributes:
        instances: objects by falling score, none with an empty mask.
        semantic: (H, W) uint8, 0 = thing, 1..S = stuff.
    """

    instances: list[ScoredInstance]
    semantic: NDArray[np.uint8]


class Segmenter:
    """A trained segmenter, ready to predict.

    Args:
        work_dir: work directory of a training run.
        checkpoint: one of its checkpoints; None takes the last.
        settings: how to predict; None takes the configuration's.
        device: where to compute.

    Raises:
        FileNotFoundError: the directory holds no finished checkpoint.
    """

    def __init__(
        self,
        work_dir: str | Path,
        *,
        checkpoint: str | Path | None = None,
        settings: PredictionSettings | None = None,
        device: str = "cpu",
    ) -> None:
        register()
        from mmcv.transforms import Compose
        from mmdet.registry import MODELS
        from mmengine.config import Config
        from mmengine.registry import DefaultScope

        from segmodels.detector.train_config import prediction_pipeline

        weights = Path(checkpoint) if checkpoint is not None else last_checkpoint(work_dir)
        if weights is None or not weights.is_file():
            raise FileNotFoundError(f"{checkpoint or work_dir} holds no checkpoint: train first")
        config = Config.fromfile(Path(work_dir) / CONFIG_FILE)
        self.settings = settings or PredictionSettings(**config.prediction)
        self.num_things: int = config.model.roi_head.mask_head.num_classes
        self.num_stuff: int = config.model.semantic_head.num_stuff_classes
        chosen = config.model.test_cfg.rcnn
        chosen.score_thr = self.settings.score_threshold
        chosen.nms.iou_threshold = self.settings.nms_threshold
        chosen.max_per_img = self.settings.max_detections
        with quiet_third_parties(), DefaultScope.overwrite_default_scope("mmdet"):
            self._model = MODELS.build(config.model)
            self._pipeline = Compose(
                prediction_pipeline(self.settings.short_side, self.settings.long_side)
            )
        state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
        self._model.load_state_dict(state)
        self._model.to(torch.device(device)).eval()

    @property
    def categories(self) -> list[Category]:
        """Thing clusters 1..K, then stuff clusters K+1..K+S."""
        things = [Category(k, f"cluster_{k:04d}") for k in range(1, self.num_things + 1)]
        stuff = [
            Category(self.num_things + s, f"stuff_{s:04d}", isthing=False)
            for s in range(1, self.num_stuff + 1)
        ]
        return things + stuff

    @torch.inference_mode()
    def predict(self, source: str, path: str) -> ImagePrediction:
        """Predict one image, named as in the images table.

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
        instances = list(_instances(found.to("cpu"), height, width))
        return ImagePrediction(instances, labels.cpu().numpy())


def configured_settings(work_dir: str | Path) -> PredictionSettings:
    """The prediction settings of the configuration that a segmenter was trained with."""
    from mmengine.config import Config

    return PredictionSettings(**Config.fromfile(Path(work_dir) / CONFIG_FILE).prediction)


def predict_panoptic(
    images: str | Path | pa.Table,
    work_dir: str | Path,
    out_folder: str | Path,
    *,
    splits: Sequence[str] | None = None,
    settings: PredictionSettings | None = None,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> int:
    """Predict every image of a table and write the predictions folder.

    The folder gets ``instances.json`` (COCO results), ``panoptic.json`` with ``panoptic/`` and
    ``semantic/`` (PNG), all at the images' own sizes; an image without any prediction has its
    entries, too. Memory does not grow with the size of an image times its number of objects.

    Args:
        images: images table or the path of one.
        work_dir: work directory of a training run.
        out_folder: where to write.
        splits: splits of the table to predict; None is all.
        settings: see :class:`Segmenter`.
        checkpoint: see :class:`Segmenter`.
        device: where to compute.
        on_progress: takes {image, total, instances} after each image.

    Returns:
        the number of images.
    """
    table = images if isinstance(images, pa.Table) else read_table(images)
    rows = table.select(["image_id", "source", "path", "split"]).to_pylist()
    rows = [row for row in rows if splits is None or row["split"] in splits]
    segmenter = Segmenter(work_dir, checkpoint=checkpoint, settings=settings, device=device)
    out = Path(out_folder)
    with PanopticWriter(out / "panoptic.json", out / "panoptic", segmenter.categories) as writer:
        results = _predicted(rows, segmenter, out, writer, on_progress)
        write_results(out / "instances.json", results)
    return len(rows)


def _predicted(
    rows: list[dict[str, Any]],
    segmenter: Segmenter,
    out: Path,
    writer: PanopticWriter,
    on_progress: Progress | None,
) -> Iterator[Result]:
    """Predict image by image, write the maps, and hand the instances on."""
    for number, row in enumerate(rows, start=1):
        image_id = row["image_id"]
        prediction = segmenter.predict(row["source"], row["path"])
        height, width = prediction.semantic.shape
        settings = segmenter.settings
        segment_map, segments = merge_panoptic(
            prediction.instances,
            prediction.semantic,
            num_things=segmenter.num_things,
            confidence=settings.instance_confidence,
            overlap=settings.overlap,
            min_stuff_pixels=settings.min_stuff_pixels(height, width),
        )
        writer.add(image_id, row["path"], segment_map, segments)
        write_png(out / "semantic" / png_name(image_id), prediction.semantic)
        for found in prediction.instances:
            yield Result(
                image_id, found.category_id, found.score, found.rle_counts, height, width,
                found.bbox,
            )  # fmt: skip
        if on_progress is not None:
            on_progress(
                {"image": number, "total": len(rows), "instances": len(prediction.instances)}
            )


def _instances(found: Any, height: int, width: int) -> Iterator[ScoredInstance]:
    """Paste the masks of one image one by one and encode them."""
    for box, score, label, probabilities in zip(
        found.bboxes, found.scores, found.labels, found.mask_probabilities, strict=True
    ):
        mask = paste_mask(probabilities, box, height, width)
        if not mask.any():
            continue
        x1, y1, x2, y2 = (float(side) for side in box)
        yield ScoredInstance(
            category_id=int(label) + 1,
            score=float(score),
            rle_counts=rle.encode(mask[None])[0],
            bbox=(x1, y1, x2 - x1, y2 - y1),
        )


def paste_mask(probabilities: Tensor, box: Tensor, height: int, width: int) -> NDArray[np.bool_]:
    """Resample a mask predicted inside a box to the image (Mask R-CNN, threshold 0.5).

    Args:
        probabilities: (m, m) float in 0..1, covering the box.
        box: (4,) xyxy in image pixels.
        height: of the image.
        width: of the image.

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
