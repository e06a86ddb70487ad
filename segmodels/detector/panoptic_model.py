"""U2Seg's network on MMDetection: a panoptic feature pyramid with cascaded box heads.

Things are clusters 0..K-1 in the box heads (category id minus one). The semantic head has S + 1
outputs: 0 is "thing", 1..S are the stuff clusters, 255 is void (U2Seg's semantic pseudo labels).
K may exceed 255 and 1000: thing labels never enter a uint8 map, and the panoptic merge
(``panoptic_merge.py``) is our own.
"""

# The classes of MMDetection and mmengine have no types.

from typing import Any

import torch
from mmdet.models.detectors import PanopticFPN
from mmdet.models.roi_heads import CascadeRoIHead
from mmdet.models.seg_heads import PanopticFPNHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional


@MODELS.register_module(force=True)
class ThingStuffHead(PanopticFPNHead):
    """Semantic head that trains on semantic maps as the pseudo-label folder stores them.

    Args:
        num_stuff_classes: S; labels are 0 (thing), 1..S (stuff) and 255 (void).
    """

    def __init__(self, num_stuff_classes: int, **kwargs: Any) -> None:
        super().__init__(num_things_classes=0, num_stuff_classes=num_stuff_classes, **kwargs)

    def _set_things_to_void(self, gt_semantic_seg: Tensor) -> Tensor:
        """Keep the labels; MMDetection's mapping would take void (255) for a thing when K > 255."""
        return gt_semantic_seg.int()


@MODELS.register_module(force=True)
class SingleMaskCascadeRoIHead(CascadeRoIHead):
    """Cascaded box heads with one mask head, as in the published U2Seg and CutLER models.

    The mask head trains on the first stage's positive regions and is applied to the last stage's
    boxes. MMDetection's own cascade trains one mask head per stage and averages them.

    Args:
        feature_gradient: factor on the gradient from each box stage to the pyramid (1 / stages in
            the published models).
    """

    def __init__(self, *args: Any, feature_gradient: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.feature_gradient = feature_gradient

    def init_mask_head(self, mask_roi_extractor: Any, mask_head: Any) -> None:
        """Build the mask head and its RoI extractor."""
        self.share_roi_extractor = False
        self.mask_roi_extractor = torch.nn.ModuleList([MODELS.build(mask_roi_extractor)])
        self.mask_head = torch.nn.ModuleList([MODELS.build(mask_head)])

    def _bbox_forward(self, stage: int, x: tuple[Tensor, ...], rois: Tensor) -> dict[str, Tensor]:
        extractor = self.bbox_roi_extractor[stage]
        features = extractor(x[: extractor.num_inputs], rois)
        if self.training and self.feature_gradient != 1:
            features = torch.lerp(features.detach(), features, self.feature_gradient)
        cls_score, bbox_pred = self.bbox_head[stage](features)
        return {"cls_score": cls_score, "bbox_pred": bbox_pred, "bbox_feats": features}

    def mask_loss(
        self,
        stage: int,
        x: tuple[Tensor, ...],
        sampling_results: list[Any],
        batch_gt_instances: list[InstanceData],
    ) -> dict[str, Any]:
        """Compute the mask loss in the first stage only."""
        if stage > 0:
            return {"loss_mask": {}}
        return super().mask_loss(stage, x, sampling_results, batch_gt_instances)

    def predict_mask(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict[str, Any]],
        results_list: list[InstanceData],
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Add ``mask_probabilities`` (n, m, m) inside each box; rescale the boxes.

        The caller pastes the masks one by one: a hundred full-size masks of a large image would
        take gigabytes.
        """
        rois = bbox2roi([results.bboxes for results in results_list])
        if len(rois) == 0:
            for results in results_list:
                results.mask_probabilities = rois.new_zeros(0, 1, 1)
            return results_list
        logits = self._mask_forward(0, x, rois)["mask_preds"]
        labels = torch.cat([results.labels for results in results_list])
        channel = torch.zeros_like(labels) if self.mask_head[0].class_agnostic else labels
        chosen = logits[torch.arange(len(labels), device=labels.device), channel].sigmoid()
        parts = chosen.split([len(results) for results in results_list])
        for results, part, meta in zip(results_list, parts, batch_img_metas, strict=True):
            results.mask_probabilities = part
            if rescale:
                scale = results.bboxes.new_tensor(meta["scale_factor"]).repeat(2)
                results.bboxes = results.bboxes / scale
        return results_list


@MODELS.register_module(force=True)
class PanopticSegmenter(PanopticFPN):
    """PanopticFPN that predicts instances and semantic logits; the caller merges them."""

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict instances and semantic logits.

        Returns:
            the data samples, each with ``pred_instances`` (``bboxes`` (n, 4) xyxy, ``scores``,
            ``labels`` 0..K-1, ``mask_probabilities`` (n, m, m) in 0..1 inside the box; boxes in
            original pixels when ``rescale``) and ``semantic_logits`` (S + 1, h, w) of the image
            without its padding, at a quarter of the network's input size.
        """
        features = self.extract_feat(batch_inputs)
        proposals = self.rpn_head.predict(features, batch_data_samples, rescale=False)
        instances = self.roi_head.predict(features, proposals, batch_data_samples, rescale=rescale)
        logits = self.semantic_head(features)["seg_preds"]
        for sample, found, semantic in zip(batch_data_samples, instances, logits, strict=True):
            sample.pred_instances = found
            sample.semantic_logits = semantic
        return batch_data_samples


def label_map(
    logits: Tensor, content: tuple[int, int], padded: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Class of highest logit at each pixel, at the image's original size.

    Classes are resized one at a time, so memory does not grow with their number.

    Args:
        logits: (c, h, w) float of the padded network input.
        content: (height, width) of the input without padding.
        padded: (height, width) of the input with padding.
        size: (height, width) of the result.

    Returns:
        (height, width) uint8 classes; the lower class wins a tie.
    """
    best = torch.full(size, -torch.inf, device=logits.device)
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for index, plane in enumerate(logits.float()):
        at_input = functional.interpolate(
            plane[None, None], size=padded, mode="bilinear", align_corners=False
        )
        inside = at_input[..., : content[0], : content[1]]
        at_size = functional.interpolate(inside, size=size, mode="bilinear", align_corners=False)
        better = at_size[0, 0] > best
        best = torch.where(better, at_size[0, 0], best)
        labels[better] = index
    return labels
