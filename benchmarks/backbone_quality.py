"""How well a backbone's keys cut salient objects out: MaskCut on photographs with one mask each.

Compares backbones, input sizes and MaskCut settings; it was used to choose those stored with the
embedded weights. Small sets like ECSSD's part tell variants apart, they reproduce no paper.

    python -m benchmarks.backbone_quality --data ecssd --backbones embedded random --sizes 240
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from kernels.ncut import maskcut
from segmodels.dino import Backbone, load_backbone
from segmodels.dino.backbone import build_model
from segmodels.dino.pixels import normalised_pixels, resize_square
from segmodels.dino.weights import EMBEDDED_FILE
from segmodels.formats.decode import read_image

RANDOM = "random"


@dataclass(frozen=True)
class Quality:
    """Mean IoU, at patch resolution, of the first mask and of the best of three."""

    first: float
    best: float


def photographs(folder: Path, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (H, W, 3) uint8 images with their (H, W) bool masks."""
    masks = sorted((folder / "ground_truth_mask").glob("*.png"))[:limit]
    for path in masks:
        with Image.open(path) as mask:
            yield (
                read_image(folder / "images", f"{path.stem}.jpg"),
                np.asarray(mask.convert("L")) > 127,
            )


def patch_truth(mask: np.ndarray, grid: int) -> np.ndarray:
    """Reduce a mask to the (grid, grid) patches that it covers by more than half."""
    cover = Image.fromarray(mask.astype(np.float32)).resize((grid, grid), Image.Resampling.BOX)
    return np.asarray(cover) > 0.5


def quality(keys: list[np.ndarray], truths: list[np.ndarray], tau: float, center: bool) -> Quality:
    """Cut every photograph and average.

    Args:
        keys: for each photograph (grid, grid, d).
        truths: for each photograph (grid, grid) bool.
        tau: affinity threshold.
        center: subtract each photograph's mean key.
    """
    scores = []
    for key, truth in zip(keys, truths, strict=True):
        grid = truth.shape
        flat = key.reshape(-1, key.shape[-1])
        masks = maskcut(flat - flat.mean(axis=0) if center else flat, grid, tau=tau).masks
        overlaps = [_iou(mask, truth) for mask in masks]
        scores.append((overlaps[0], max(overlaps)))
    first, best = np.mean(scores, axis=0)
    return Quality(float(first), float(best))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def backbone_keys(backbone: Backbone, images: list[np.ndarray], size: int) -> list[np.ndarray]:
    """Keys (grid, grid, d) of every photograph at one input size."""
    keys = []
    for image in images:
        pixels = torch.from_numpy(normalised_pixels(resize_square(image, size)))
        keys.append(backbone.extract(pixels[None]).keys[0].cpu().numpy())
    return keys


def random_backbone(seed: int) -> Backbone:
    """Build the embedded transformer with untrained weights."""
    with safe_open(EMBEDDED_FILE, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in sorted(file.keys())}
        metadata = file.metadata()
    model = build_model(state, metadata)
    model.initialise(torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        save_file(model.state_dict(), path, metadata)
        return load_backbone(path)


def main() -> None:
    """Parse the command line and print one line for each combination."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbone_quality")
    parser.add_argument("--data", type=Path, required=True, help="images/, ground_truth_mask/")
    parser.add_argument("--backbones", nargs="+", default=["embedded", RANDOM])
    parser.add_argument("--sizes", type=int, nargs="+", default=[240])
    parser.add_argument("--taus", type=float, nargs="+", default=[0.15])
    parser.add_argument("--center", type=int, nargs="+", choices=(0, 1), default=[1])
    parser.add_argument("--limit", type=int, default=100, help="photographs")
    given = parser.parse_args()
    images, masks = zip(*photographs(given.data, given.limit), strict=True)
    for name, size in product(given.backbones, given.sizes):
        backbone = random_backbone(0) if name == RANDOM else load_backbone(name)
        keys = backbone_keys(backbone, list(images), size)
        truths = [patch_truth(mask, size // backbone.patch_size) for mask in masks]
        for tau, center in product(given.taus, given.center):
            result = quality(keys, truths, tau, bool(center))
            print(
                f"{name} size {size} tau {tau} center_keys {bool(center)}: "
                f"first {result.first:.3f} best of three {result.best:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
