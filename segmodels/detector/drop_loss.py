"""DropLoss: do not penalise a detector for objects that the pseudo labels missed.

CutLER (sec. 3.2 and its released code): a sampled region whose *predicted* box has no IoU above a
threshold with any pseudo box does not contribute to the classification loss of its cascade stage.
Dropped regions stay in the denominator of the mean; box and mask losses are unchanged.
"""

# The classes of MMDetection and mmengine have no types.

from typing import Any

import torch
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.models.task_modules.samplers.sampling_result import SamplingResult
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor


def drop_weights(predicted_boxes: Tensor, pseudo_boxes: Tensor, threshold: float) -> Tensor:
    """Classification weight of each sampled region of one image.

    Args:
        predicted_boxes: (n, 4) float xyxy, px, decoded predictions of the stage.
        pseudo_boxes: (m, 4) float xyxy, px, all pseudo boxes of the image.
        threshold: largest IoU at which a region is dropped.

    Returns:
        (n,) float of 0 and 1; all 1 for an image without pseudo boxes.
    """
    if len(pseudo_boxes) == 0:
        return predicted_boxes.new_ones(len(predicted_boxes))
    best = bbox_overlaps(predicted_boxes, pseudo_boxes).amax(dim=1)
    return (best > threshold).to(predicted_boxes.dtype)


@TASK_UTILS.register_module(force=True)
class PseudoBoxSampler(RandomSampler):
    """RandomSampler whose result also carries all pseudo boxes of the image.

    MMDetection's sampling result has only the boxes that a sampled region was assigned to.
    """

    def sample(
        self, assign_result: Any, pred_instances: Any, gt_instances: Any, **kwargs: Any
    ) -> SamplingResult:
        """Sample regions; the result has ``pseudo_boxes`` (m, 4)."""
        result = super().sample(assign_result, pred_instances, gt_instances, **kwargs)
        result.pseudo_boxes = gt_instances.bboxes
        return result


@MODELS.register_module(force=True)
class DropLossBoxHead(Shared2FCBBoxHead):
    """Box head of two fully connected layers, with DropLoss.

    Args:
        drop_threshold: largest IoU at which a region is dropped; None turns DropLoss off.
    """

    def __init__(self, *args: Any, drop_threshold: float | None = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drop_threshold = drop_threshold

    def loss_and_target(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        rois: Tensor,
        sampling_results: list[SamplingResult],
        rcnn_train_cfg: Any,
        concat: bool = True,
        reduction_override: str | None = None,
    ) -> dict[str, Any]:
        """Compute MMDetection's losses and targets; the classification loss is DropLoss."""
        if self.drop_threshold is None:
            return super().loss_and_target(
                cls_score, bbox_pred, rois, sampling_results, rcnn_train_cfg, concat,
                reduction_override,
            )  # fmt: skip
        targets = self.get_targets(sampling_results, rcnn_train_cfg, concat=concat)
        labels, label_weights = targets[:2]
        losses = self.loss(None, bbox_pred, rois, *targets, reduction_override=reduction_override)
        kept = self._region_weights(bbox_pred, rois, sampling_results, self.drop_threshold)
        losses["loss_cls"] = self.loss_cls(
            cls_score, labels, label_weights * kept, avg_factor=max(len(labels), 1)
        )
        losses["kept_regions"] = kept.mean() if len(kept) else kept.new_ones(())
        return {"loss_bbox": losses, "bbox_targets": targets}

    @torch.no_grad()
    def _region_weights(
        self,
        bbox_pred: Tensor,
        rois: Tensor,
        sampling_results: list[SamplingResult],
        threshold: float,
    ) -> Tensor:
        boxes = self.bbox_coder.decode(rois[:, 1:], bbox_pred)
        per_image = boxes.split([len(result.priors) for result in sampling_results])
        weights = [
            drop_weights(image_boxes, result.pseudo_boxes, threshold)
            for image_boxes, result in zip(per_image, sampling_results, strict=True)
        ]
        return torch.cat(weights)
