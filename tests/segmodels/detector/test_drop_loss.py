"""DropLoss by hand-worked numbers."""

import math
from types import SimpleNamespace

import pytest
import torch

from segmodels.detector.registration import register

register()

from segmodels.detector.drop_loss import DropLossBoxHead, drop_weights

PSEUDO = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def test_a_region_without_overlap_is_dropped() -> None:
    predicted = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],  # IoU 1
            [9.0, 9.0, 19.0, 19.0],  # 1 / 199 = 0.005
            [8.0, 9.0, 18.0, 19.0],  # 2 / 198 = 0.0101
            [20.0, 20.0, 30.0, 30.0],  # 0
        ]
    )
    assert drop_weights(predicted, PSEUDO, 0.01).tolist() == [1, 0, 1, 0]


def test_the_threshold_itself_is_dropped() -> None:
    predicted = torch.tensor([[0.0, 0.0, 10.0, 5.0]])  # IoU exactly 0.5
    assert drop_weights(predicted, PSEUDO, 0.5).tolist() == [0]
    assert drop_weights(predicted, PSEUDO, 0.49).tolist() == [1]


def test_an_image_without_pseudo_boxes_keeps_the_plain_loss() -> None:
    assert drop_weights(torch.ones(3, 4), torch.zeros(0, 4), 0.01).tolist() == [1, 1, 1]


def head(threshold: float | None) -> DropLossBoxHead:
    return DropLossBoxHead(
        drop_threshold=threshold, in_channels=1, fc_out_channels=2, roi_feat_size=1,
        num_classes=1, reg_class_agnostic=True,
        bbox_coder={"type": "mmdet.DeltaXYWHBBoxCoder", "target_stds": [1.0, 1.0, 1.0, 1.0]},
        loss_cls={"type": "mmdet.CrossEntropyLoss"}, loss_bbox={"type": "mmdet.L1Loss"},
    )  # fmt: skip


def losses(threshold: float | None, shift: float = 0.0) -> dict[str, torch.Tensor]:
    """One positive on the pseudo box, a near negative, and a far one predicted ``shift`` off."""
    priors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [40.0, 0.0, 50.0, 10.0]])
    sampled = SimpleNamespace(
        priors=priors, pos_priors=priors[:1], neg_priors=priors[1:], pos_gt_bboxes=PSEUDO,
        pos_gt_labels=torch.tensor([0]), pseudo_boxes=PSEUDO,
    )  # fmt: skip
    # Softmax (object, background): 0.8 / 0.2, 0.5 / 0.5, 0.8 / 0.2.
    scores = torch.tensor([[math.log(4.0), 0.0], [0.0, 0.0], [math.log(4.0), 0.0]])
    deltas = torch.zeros(3, 4)
    deltas[2, 0] = shift  # in widths of the prior
    rois = torch.cat([torch.zeros(3, 1), priors], dim=1)
    config = SimpleNamespace(pos_weight=-1)
    return head(threshold).loss_and_target(scores, deltas, rois, [sampled], config)["loss_bbox"]


def test_dropped_regions_stay_in_the_denominator() -> None:
    found = losses(0.01)
    # -log 0.8 for the positive, -log 0.5 for the near negative; the far one is dropped.
    assert float(found["loss_cls"]) == pytest.approx((-math.log(0.8) - math.log(0.5)) / 3)
    assert float(found["kept_regions"]) == pytest.approx(2 / 3)


def test_the_predicted_box_decides_not_the_region() -> None:
    moved_onto = losses(0.01, shift=-4.0)  # the far region predicts the pseudo box itself
    expected = (-math.log(0.8) - math.log(0.5) - math.log(0.2)) / 3
    assert float(moved_onto["loss_cls"]) == pytest.approx(expected)


def test_off_is_the_plain_mean() -> None:
    expected = (-math.log(0.8) - math.log(0.5) - math.log(0.2)) / 3
    assert float(losses(None)["loss_cls"]) == pytest.approx(expected)


def test_box_loss_is_untouched() -> None:
    assert float(losses(0.01)["loss_bbox"]) == float(losses(None)["loss_bbox"]) == 0.0
