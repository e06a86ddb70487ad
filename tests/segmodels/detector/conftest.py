"""A tiny drawn dataset with its pseudo-label folder, for tests of the segmenter."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from scipy import ndimage

from segmodels.datasets.images import IMAGES_SCHEMA
from segmodels.detector.pseudo_labels import (
    cluster_categories,
    semantic_file,
    write_cluster_counts,
)
from segmodels.formats.arrow import write_table
from segmodels.formats.coco import write_instances
from segmodels.formats.masks import mask_row, mask_table
from segmodels.formats.segment_png import write_png


@dataclass(frozen=True)
class Shapes:
    """A dataset of coloured discs (cluster 1) and squares (cluster 2) over two textures."""

    images: Path
    labels: Path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small networks gain nothing from threads, and a busy machine makes them stall."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def draw_shapes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shapes]:
    """Draws a dataset: images 1..count, the last without any instance when ``with_empty``."""

    def draw(
        *,
        count: int = 4,
        size: tuple[int, int] = (64, 80),
        things: int = 2,
        stuff: int = 2,
        with_empty: bool = False,
        seed: int = 0,
    ) -> Shapes:
        folder = tmp_path_factory.mktemp("shapes")
        labels = folder / "labels"
        rng = np.random.default_rng(seed)
        images, masks, clusters = [], [], []
        categories = cluster_categories(things, stuff)
        for image_id in range(1, count + 1):
            shapes = 0 if with_empty and image_id == count else int(rng.integers(1, 4))
            pixels, semantic, found = _draw(rng, size, shapes)
            Image.fromarray(pixels).save(folder / f"{image_id}.png")
            write_png(semantic_file(labels, image_id, 0), semantic)
            images.append(
                {"image_id": image_id, "source": str(folder), "path": f"{image_id}.png",
                 "height": size[0], "width": size[1], "sha256": "", "split": "train", "shard": 0}
            )  # fmt: skip
            for kind, mask in found:
                masks.append(mask_row(image_id, len(masks), mask, score=1, source="drawn", round=0))
                # The second kind takes the last cluster, so that large numbers are trained on.
                clusters.append(1 if kind == 0 else things)
        table = pa.Table.from_pylist(images, schema=IMAGES_SCHEMA)
        write_table(table, folder / "images.arrow")
        write_instances(labels / "instances.json", table, mask_table(masks), categories[:things],
                        clusters)  # fmt: skip
        write_cluster_counts(labels, things, stuff)
        return Shapes(folder / "images.arrow", labels)

    return draw


@pytest.fixture(scope="session")
def shapes(draw_shapes: Callable[..., Shapes]) -> Shapes:
    """Four small images, the last without instances."""
    return draw_shapes(with_empty=True)


def _draw(
    rng: np.random.Generator, size: tuple[int, int], count: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, np.ndarray]]]:
    height, width = size
    texture = ndimage.gaussian_filter(rng.normal(size=(*size, 3)), (2, 2, 0))
    texture *= 20 / texture.std()
    semantic = np.ones(size, dtype=np.uint8)
    semantic[rng.integers(height // 3, 2 * height // 3) :] = 2
    pixels = np.where((semantic == 1)[..., None], (90, 120, 160), (120, 100, 80)) + texture
    rows, columns = np.mgrid[:height, :width]
    taken = np.zeros(size, dtype=bool)
    found = []
    while len(found) < count:
        kind, radius = int(rng.integers(2)), int(rng.integers(height // 10, height // 5))
        y, x = rng.integers(radius, height - radius), rng.integers(radius, width - radius)
        if kind == 0:
            mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        else:
            mask = np.maximum(abs(rows - y), abs(columns - x)) < 0.8 * radius
        if (mask & taken).any():
            continue
        taken |= mask
        colour = np.array((200, 60, 60) if kind == 0 else (60, 180, 70))
        pixels[mask] = colour + rng.normal(size=3) * 20 + texture[mask] * 0.7
        semantic[mask] = 0
        found.append((kind, mask))
    return pixels.clip(0, 255).astype(np.uint8), semantic, found
