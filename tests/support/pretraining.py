"""Tiny pre-training runs: photographs of discs, settings, and a trainer that knows the discs."""

from dataclasses import replace

import numpy as np
import torch

from segmodels.dino.distributed import Group
from segmodels.dino.salient import salient_cells
from segmodels.dino.settings import CropSettings, PretrainSettings, SaliencySettings
from segmodels.dino.trainer import Trainer

CROPS = CropSettings(global_size=16, local_size=8, num_local=2)
TINY = PretrainSettings(
    patch_size=4,
    dim=16,
    depth=2,
    num_heads=2,
    crops=CROPS,
    saliency=SaliencySettings(view_size=16, cells=6),
    photo_size=24,
    batch_size=4,
    steps=8,
    prototypes=32,
    patch_prototypes=16,
    bfloat16=False,
)
# DINO's own loss alone.
PLAIN = replace(
    TINY, patch_weight=0.0, student_keep=1.0, saliency=replace(TINY.saliency, weight=0.0)
)


def blobs(n: int, size: int = 24) -> np.ndarray:
    """Photographs of one coloured disc each, (n, size, size, 3) uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    photos = np.empty((n, size, size, 3), np.uint8)
    for photo in photos:
        cy, cx = rng.uniform(size / 4, 3 * size / 4, 2)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < (size / 4) ** 2
        photo[:] = rng.integers(0, 256, 3)
        photo[inside] = rng.integers(0, 256, 3)
    return photos


def trainer_of(
    settings: PretrainSettings, photos: np.ndarray, group: Group | None = None
) -> Trainer:
    """A trainer that knows where the photographs' objects are."""
    salient = np.stack([salient_cells(photo, settings.saliency.cells) for photo in photos])
    return Trainer(settings, photos, salient, group=group)


def states_equal(a: Trainer, b: Trainer) -> bool:
    pairs = [(a.student, b.student), (a.teacher, b.teacher), (a.cls_targets, b.cls_targets)]
    return all(
        torch.equal(x, y)
        for one, other in pairs
        for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )
