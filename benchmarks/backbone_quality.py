"""How well a backbone's keys cut objects out, beside random weights and hand-made descriptors.

    python -m benchmarks backbone_quality --data ...   the tables
    python -m benchmarks.backbone_quality --data ...   trials: sizes, thresholds, centring

Small sets tell variants apart, they reproduce no paper.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.descriptors import PATCH, SIZE, descriptors
from benchmarks.options import Options
from benchmarks.tables import Table
from kernels.affinity import center_keys
from kernels.ncut import maskcut
from segmodels.dino import Backbone, load_backbone
from segmodels.dino.backbone import build_model
from segmodels.dino.pixels import normalised_pixels, resize_square
from segmodels.dino.salient import salient_cells
from segmodels.dino.settings import SaliencySettings
from segmodels.dino.weights import EMBEDDED_FILE
from segmodels.formats.decode import read_image

RANDOM, DESCRIPTORS, SALIENCY = "random", "descriptors", "saliency, no backbone"
RESAMPLES = 10_000
Keys = NDArray[np.float32]
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Quality:
    """IoU of every photograph, at patch resolution: of the first mask, and of the best of three."""

    first: NDArray[np.float64]
    best: NDArray[np.float64]


def run(options: Options) -> list[Table]:
    """Measure the embedded backbone, the same untrained, and the descriptors, by paired bootstrap."""
    if options.data is None:
        title = "Not measured: it needs photographs with ground truth (`--data`)."
        return [Table(title, ["backbone"], [])]
    ecssd = options.data / "data" / "ecssd"
    images, masks = zip(*photographs(ecssd, 12 if options.quick else 100), strict=True)
    embedded = load_backbone("embedded")
    found = {
        name: recommended_quality(name, embedded, list(images), list(masks))
        for name in ("embedded", RANDOM, DESCRIPTORS, SALIENCY)
    }
    rows = []
    for name, scores in found.items():
        row = [name, f"{scores.first.mean():.3f}", f"{scores.best.mean():.3f}"]
        if name == "embedded":
            rows.append([*row, "-", "-"])
            continue
        for ours, theirs in (
            (found["embedded"].first, scores.first),
            (found["embedded"].best, scores.best),
        ):
            low, high = paired_interval(ours, theirs)
            row.append(f"{np.mean(ours - theirs):+.3f} ({low:+.3f} to {high:+.3f})")
        rows.append(row)
    settings = f"{embedded.image_size} px, tau {embedded.tau}, centred keys {embedded.center_keys}"
    return [
        Table(
            f"MaskCut's three masks of {len(images)} ECSSD photographs, no CRF, IoU at patch "
            f"resolution. embedded and random: {settings}; descriptors: {SIZE} px, tau 0.15; saliency: "
            "its one mask on its own cells. Differences with 95 % intervals of a paired bootstrap.",
            ["backbone", "first mask", "best of three", "embedded more, first", "best of three"],
            rows,
        )
    ]


def recommended_quality(
    name: str, embedded: Backbone, images: list[np.ndarray], masks: list[np.ndarray]
) -> Quality:
    """Cut with what a backbone recommends; the untrained one takes the embedded one's settings."""
    if name == DESCRIPTORS:
        truths = [patch_truth(mask, SIZE // PATCH) for mask in masks]
        return quality((descriptors(resize_square(i, SIZE)) for i in images), truths, 0.15, False)
    if name == SALIENCY:
        cells = SaliencySettings().cells
        pairs = zip(images, masks, strict=True)
        found = [_iou(salient_cells(image, cells), patch_truth(m, cells)) for image, m in pairs]
        return Quality(np.array(found), np.array(found))
    backbone = random_backbone(0) if name == RANDOM else embedded
    keys = backbone_keys(backbone, images, embedded.image_size)
    truths = [patch_truth(mask, embedded.image_size // backbone.patch_size) for mask in masks]
    return quality(keys, truths, embedded.tau, embedded.center_keys)


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


def quality(
    keys: Iterator[Keys] | Sequence[Keys], truths: Sequence[Masks], tau: float, center: bool
) -> Quality:
    """Cut every photograph.

    Args:
        keys: for each photograph (grid, grid, d).
        truths: for each photograph (grid, grid) bool.
        tau: affinity threshold.
        center: subtract each photograph's mean key.
    """
    scores = []
    for key, truth in zip(keys, truths, strict=True):
        chosen = center_keys(key) if center else key
        masks = maskcut(chosen.reshape(truth.size, -1), truth.shape, tau=tau).masks
        overlaps = [_iou(mask, truth) for mask in masks]
        scores.append((overlaps[0], max(overlaps)))
    first, best = np.array(scores).T
    return Quality(first, best)


def paired_interval(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean difference, by resampling photographs."""
    chosen = np.random.default_rng(seed).integers(len(ours), size=(RESAMPLES, len(ours)))
    low, high = np.quantile((ours - theirs)[chosen].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _iou(a: Masks, b: Masks) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def backbone_keys(backbone: Backbone, images: list[np.ndarray], size: int) -> list[Keys]:
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
            scores = quality(keys, truths, tau, bool(center))
            print(
                f"{name} size {size} tau {tau} center_keys {bool(center)}: "
                f"first {scores.first.mean():.3f} best of three {scores.best.mean():.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
