"""Stand-in for ``mmcv._ext``, the compiled operators that mmcv-lite does not carry.

MMDetection's two-stage detectors call three of them at run time: non-maximum suppression and
RoIAlign forward and backward. They are written here in plain torch and run on any device; every
other operator raises when it is called. A compiled ``mmcv._ext`` takes precedence.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_MAX_TAPS = 1 << 23  # index and weight entries held at once: 96 MB in float32


def nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4) float, xyxy pixels.
        scores: (n,) float.
        iou_threshold: discard a box whose IoU with a kept box of higher score is above this.
        offset: 0, or 1 when sides include both border pixels (legacy boxes).

    Returns:
        (m,) int64 indices of the kept boxes, best score first; equal scores keep their order.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    # The loop is sequential; on small arrays NumPy has the lowest overhead per step.
    corners = boxes[order].detach().cpu().double().numpy()
    x1, y1, x2, y2 = corners.T
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    alive = np.ones(len(corners), dtype=bool)
    for index in range(len(corners)):
        if not alive[index]:
            continue
        rest = slice(index + 1, None)
        width = np.minimum(x2[index], x2[rest]) - np.maximum(x1[index], x1[rest]) + offset
        height = np.minimum(y2[index], y2[rest]) - np.maximum(y1[index], y1[rest]) + offset
        shared = width.clip(0) * height.clip(0)
        union = areas[index] + areas[rest] - shared
        alive[rest] &= shared <= iou_threshold * union
    return order[torch.from_numpy(alive).to(order.device)]


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average RoIAlign (Mask R-CNN) of ``features`` (n, c, h, w), written into ``output``.

    Args:
        features: (n, c, h, w) float.
        rois: (r, 5) float: image index, then xyxy in input pixels.
        output: (r, c, aligned_height, aligned_width) of zeros, filled.
        argmax_y: unused (maximum pooling only).
        argmax_x: unused (maximum pooling only).
        aligned_height: bins along y.
        aligned_width: bins along x.
        spatial_scale: feature pixels per input pixel.
        sampling_ratio: samples per bin and axis; 0 takes one per feature pixel of a bin.
        pool_mode: 1, the average.
        aligned: shift by half a pixel, so that pixel centres are at .5.
    """
    _require_average(pool_mode)
    rows = features.permute(0, 2, 3, 1).flatten(0, 2)
    bins = (aligned_height, aligned_width)
    scaled = _scaled_rois(rois, spatial_scale, aligned)
    for members, taps, weights in _sampling_plan(scaled, bins, features, sampling_ratio):
        pooled = _weighted_rows(rows, taps, weights)
        output[members] = pooled.view(len(members), *bins, -1).permute(0, 3, 1, 2)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward` for its features, written into ``grad_input``."""
    _require_average(pool_mode)
    n, c, h, w = grad_input.shape
    bins = (aligned_height, aligned_width)
    total = grad_input.new_zeros(n * h * w, c)
    scaled = _scaled_rois(rois, spatial_scale, aligned)
    for members, taps, weights in _sampling_plan(scaled, bins, grad_input, sampling_ratio):
        # Pooling is linear in the rows, so its gradient does not depend on their values.
        rows = torch.zeros_like(total, requires_grad=True)
        incoming = grad_output[members].permute(0, 2, 3, 1).reshape(-1, c)
        with torch.enable_grad():
            pooled = _weighted_rows(rows, taps, weights)
        total += torch.autograd.grad(pooled, rows, incoming)[0]
    grad_input.copy_(total.view(n, h, w, c).permute(0, 3, 1, 2))


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "the stand-in for mmcv's RoIAlign only averages (pool_mode='avg')"
        )


def _weighted_rows(rows: Tensor, taps: Tensor, weights: Tensor) -> Tensor:
    return functional.embedding_bag(taps, rows, per_sample_weights=weights, mode="sum")


def _scaled_rois(rois: Tensor, spatial_scale: float, aligned: bool) -> Tensor:
    """RoIs as (r, 5): image index, y, x, height, width in feature pixels."""
    # Half precision cannot hold the coordinates of a large image.
    rois = rois.detach().to(torch.promote_types(rois.dtype, torch.float32))
    low, high = rois[:, 1:].mul(spatial_scale).sub(0.5 if aligned else 0.0).chunk(2, dim=1)
    size = high - low
    if not aligned:
        size = size.clamp(min=1)
    return torch.cat([rois[:, :1], low.flip(1), size.flip(1)], dim=1)


def _sampling_plan(
    scaled: Tensor, bins: tuple[int, int], features: Tensor, sampling_ratio: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Feature rows that each bin sums, for groups of RoIs with the same number of samples.

    Yields:
        (indices of the RoIs, taps, weights); taps index the rows of ``features`` laid out as
        (n * h * w, c); taps and weights are (RoIs * bins, taps of a bin).
    """
    height, width = features.shape[-2:]
    if sampling_ratio > 0:
        samples = torch.full_like(scaled[:, 3:], sampling_ratio, dtype=torch.int64)
    else:
        samples = (scaled[:, 3:] / scaled.new_tensor(bins)).ceil().long().clamp(min=0)
    for pair in torch.unique(samples, dim=0):
        if not pair.all():  # an empty RoI has no samples; its output stays zero
            continue
        group = (samples == pair).all(dim=1).nonzero().squeeze(1)
        across = (int(pair[0]), int(pair[1]))
        taps_per_roi = 4 * bins[0] * bins[1] * across[0] * across[1]
        for members in group.split(max(1, _MAX_TAPS // taps_per_roi)):
            image, y, x, tall, wide = scaled[members].unbind(dim=1)
            index_y, weight_y = _axis_taps(y, tall, bins[0], across[0], height)
            index_x, weight_x = _axis_taps(x, wide, bins[1], across[1], width)
            row = (image.long() * height)[:, None, None] + index_y
            taps = row[:, :, None, :, None] * width + index_x[:, None, :, None, :]
            weights = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
            per_bin = (len(members) * bins[0] * bins[1], -1)
            yield members, taps.view(per_bin), weights.view(per_bin).to(features.dtype)


def _axis_taps(
    start: Tensor, size: Tensor, bins: int, samples: int, length: int
) -> tuple[Tensor, Tensor]:
    """Neighbours and linear weights of every sample along one axis, each (r, bins, 2 * samples)."""
    bin_index = torch.arange(bins, device=start.device)[:, None]
    sample_index = torch.arange(samples, device=start.device)
    centre = bin_index + (sample_index + 0.5).to(start.dtype) / samples
    position = start[:, None, None] + (size / bins)[:, None, None] * centre
    inside = (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=length - 1)
    fraction = position - low
    weights = torch.stack([(1 - fraction) * inside, fraction * inside], dim=-1) / samples
    return torch.stack([low, high], dim=-1).flatten(2), weights.flatten(2)


def _torchvision_operators() -> dict[str, Callable[..., Any]]:
    """The three operators by torchvision's compiled ones, which are faster, above all on a GPU."""
    importlib.import_module("torchvision")  # registers the operators
    ops = torch.ops.torchvision

    def fast_nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int = 0) -> Tensor:
        if offset:
            return nms(boxes, scores, iou_threshold=iou_threshold, offset=offset)
        kept: Tensor = ops.nms(boxes, scores, iou_threshold)
        return kept

    def forward(
        features: Tensor, rois: Tensor, output: Tensor, *_argmax: Tensor, **how: Any
    ) -> None:
        _require_average(how["pool_mode"])
        size = (how["aligned_height"], how["aligned_width"])
        output.copy_(
            ops.roi_align(
                features, rois.to(features.dtype), how["spatial_scale"], *size,
                how["sampling_ratio"], how["aligned"],
            )
        )  # fmt: skip

    def backward(
        grad_output: Tensor, rois: Tensor, _y: Tensor, _x: Tensor, grad_input: Tensor, **how: Any
    ) -> None:
        _require_average(how["pool_mode"])
        size = (how["aligned_height"], how["aligned_width"])
        grad_input.copy_(
            ops._roi_align_backward(
                grad_output, rois.to(grad_output.dtype), how["spatial_scale"], *size,
                *grad_input.shape, how["sampling_ratio"], how["aligned"],
            )
        )  # fmt: skip

    return {"nms": fast_nms, "roi_align_forward": forward, "roi_align_backward": backward}


class _StandIn(ModuleType):
    """Module ``mmcv._ext`` in which a missing operator raises when it is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: Any, **_kwargs: Any) -> None:
            raise NotImplementedError(f"mmcv operator {name!r} needs a compiled mmcv")

        return missing


def torchvision_works() -> bool:
    """Whether torchvision imports; a build for another torch is hidden from later imports.

    mmengine imports torchvision for its environment report, and copes only with its absence.
    """
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"] is not None
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError):
        sys.modules["torchvision"] = None  # type: ignore[assignment]
        return False
    return True


def install_mmcv_ops() -> bool:
    """Install the stand-in as ``mmcv._ext`` unless a compiled one exists; returns whether it did."""
    if "mmcv._ext" in sys.modules or importlib.util.find_spec("mmcv._ext") is not None:
        return False
    operators: dict[str, Callable[..., Any]] = {
        "nms": nms,
        "roi_align_forward": roi_align_forward,
        "roi_align_backward": roi_align_backward,
    }
    if torchvision_works():
        operators = _torchvision_operators()
    module = _StandIn("mmcv._ext", "Pure torch operators (segmodels.detector.mmcv_ops)")
    module.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", loader=None)
    vars(module).update(operators)
    sys.modules["mmcv._ext"] = module
    return True
