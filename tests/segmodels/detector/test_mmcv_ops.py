"""Pure torch operators against loops that follow their definitions."""

import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodels.detector.mmcv_ops import install_mmcv_ops, nms
from segmodels.detector.registration import register


def brute_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(brute_iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def brute_iou(a: np.ndarray, b: np.ndarray, offset: int) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


@given(
    count=st.integers(0, 40),
    seed=st.integers(0, 10**6),
    offset=st.sampled_from([0, 1]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7]),
)
@settings(max_examples=30, deadline=None)
def test_nms_keeps_what_the_definition_keeps(
    count: int, seed: int, offset: int, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 20, size=(count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 12, size=(count, 2))], axis=1)
    scores = rng.integers(0, 6, size=count) / 5  # many equal scores
    kept = nms(
        torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores),
        iou_threshold=threshold, offset=offset,
    )  # fmt: skip
    assert kept.tolist() == brute_nms(boxes.astype(float), scores, threshold, offset)


def brute_roi_align(features, roi, bins, *, scale, ratio, aligned):
    """RoIAlign by its definition, a loop over every sample."""
    channels, height, width = features.shape[1:]
    out = np.zeros((channels, *bins))
    offset = 0.5 if aligned else 0.0
    image = int(roi[0])
    x1, y1, x2, y2 = (side * scale - offset for side in roi[1:])
    tall, wide = y2 - y1, x2 - x1
    if not aligned:
        tall, wide = max(tall, 1.0), max(wide, 1.0)
    count_y = ratio or max(math.ceil(tall / bins[0]), 0)
    count_x = ratio or max(math.ceil(wide / bins[1]), 0)
    for by in range(bins[0]):
        for bx in range(bins[1]):
            for iy in range(count_y):
                for ix in range(count_x):
                    y = y1 + (by + (iy + 0.5) / count_y) * tall / bins[0]
                    x = x1 + (bx + (ix + 0.5) / count_x) * wide / bins[1]
                    out[:, by, bx] += bilinear(features[image], y, x, height, width)
    return out / max(count_y * count_x, 1)


def bilinear(plane, y, x, height, width):
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(plane.shape[0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = y - y0, x - x0
    top = plane[:, y0, x0] * (1 - dx) + plane[:, y0, x1] * dx
    return top * (1 - dy) + (plane[:, y1, x0] * (1 - dx) + plane[:, y1, x1] * dx) * dy


ROIS = [
    [0, 2.0, 3.0, 17.0, 12.5],
    [1, -6.0, -3.0, 9.0, 40.0],  # reaches over the borders
    [1, 100.0, 100.0, 120.0, 130.0],  # lies outside
    [0, 5.3, 5.3, 6.1, 5.9],  # smaller than a bin
    [0, 8.0, 8.0, 8.0, 8.0],  # empty
]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_is_the_average_of_its_samples(aligned: bool, ratio: int) -> None:
    register()
    ops = importlib.import_module("mmcv.ops")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 9, 11))
    rois = torch.tensor(ROIS, dtype=torch.float64)
    got = ops.roi_align(torch.tensor(features), rois, (2, 3), 0.5, ratio, "avg", aligned)
    for index, roi in enumerate(ROIS):
        expected = brute_roi_align(features, roi, (2, 3), scale=0.5, ratio=ratio, aligned=aligned)
        np.testing.assert_allclose(got[index].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_has_the_right_gradient(ratio: int) -> None:
    register()
    ops = importlib.import_module("mmcv.ops")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, 6, 7, dtype=torch.float64, generator=generator)
    features.requires_grad_()
    rois = torch.tensor(ROIS[:4], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda values: ops.roi_align(values, rois, (2, 2), 0.5, ratio, "avg", True), (features,)
    )


def test_roi_align_takes_no_regions() -> None:
    register()
    ops = importlib.import_module("mmcv.ops")
    features = torch.ones(1, 4, 5, 5, requires_grad=True)
    pooled = ops.roi_align(features, torch.zeros(0, 5), (7, 7), 1.0, 0, "avg", True)
    assert pooled.shape == (0, 4, 7, 7)
    pooled.sum().backward()
    assert not features.grad.any()


def test_the_stand_in_steps_in_once_and_says_what_it_lacks() -> None:
    register()
    assert not install_mmcv_ops()
    extension = importlib.import_module("mmcv._ext")
    with pytest.raises(NotImplementedError, match="'carafe_forward' needs a compiled mmcv"):
        extension.carafe_forward()
    ops = importlib.import_module("mmcv.ops")
    with pytest.raises(NotImplementedError, match="only averages"):
        ops.roi_align(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, "max", True)
