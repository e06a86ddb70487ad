"""Tiny pre-training runs: images of discs, settings, and a trainer that knows the discs."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segmodels.dino.salient_maps import salient_map
from segmodels.dino.settings import (
    CropSettings,
    PretrainSettings,
    SaliencySettings,
    ShapeSettings,
)
from segmodels.dino.trainer import Trainer
from segmodels.engine.distributed import Group

CROPS = CropSettings(global_size=16, local_size=8, num_local=2)
TINY = PretrainSettings(
    patch_size=4,
    dim=16,
    depth=2,
    num_heads=2,
    crops=CROPS,
    saliency=SaliencySettings(view_size=16, cells=12),
    shape=ShapeSettings(view_size=8, cells=4),
    photo_size=24,
    batch_size=4,
    steps=8,
    prototypes=32,
    patch_prototypes=16,
    bfloat16=False,
)
# DINO's own loss alone.
PLAIN = replace(
    TINY,
    patch_weight=0.0,
    student_keep=1.0,
    saliency=replace(TINY.saliency, weight=0.0),
    shape=replace(TINY.shape, weight=0.0),
)


def blobs(n: int, size: int = 24) -> np.ndarray:
    """Images of one coloured disc each, (n, size, size, 3) uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    images = np.empty((n, size, size, 3), np.uint8)
    for image in images:
        cy, cx = rng.uniform(size / 4, 3 * size / 4, 2)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < (size / 4) ** 2
        image[:] = rng.integers(0, 256, 3)
        image[inside] = rng.integers(0, 256, 3)
    return images


def write_images(folder: Path, images: np.ndarray) -> None:
    """Half of them as files, half in a tar, with one file that is no image."""
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"no image")
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for i, image in enumerate(images):
            if i % 2:
                Image.fromarray(image).save(folder / f"{i}.png")
                continue
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            member = tarfile.TarInfo(f"{i}.png")
            member.size = content.tell()
            content.seek(0)
            shard.addfile(member, content)


def trainer_of(
    settings: PretrainSettings, images: np.ndarray, group: Group | None = None
) -> Trainer:
    """A trainer that knows where the images' objects are."""
    maps = np.stack([salient_map(image, settings.saliency.cells) for image in images])
    return Trainer(settings, images, maps, group=group)


def states_equal(a: Trainer, b: Trainer) -> bool:
    """Whether networks and centres are the same."""
    pairs = [
        (a.student, b.student),
        (a.teacher, b.teacher),
        (a.distillation, b.distillation),
    ]
    return all(
        torch.equal(x, y)
        for one, other in pairs
        for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )
