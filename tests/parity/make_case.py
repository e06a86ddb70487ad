"""Make case.npz: photographs of scikit-image and the embedded backbone's keys of them.

python tests/parity/make_case.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from segmodels.backbones import load_backbone
from segmodels.backbones.pixels import normalised_pixels

CASE = Path(__file__).with_name("case.npz")
NAMES = ("astronaut", "chelsea", "coffee")
PATCHES = 16  # down and across
CRF_SIDE = 40  # px


def squares(side: int) -> np.ndarray:
    """The photographs as squares: (n, side, side, 3) uint8 RGB."""
    photographs = [Image.fromarray(getattr(data, name)()) for name in NAMES]
    return np.stack([np.asarray(one.resize((side, side))) for one in photographs])


def make_case(path: Path) -> None:
    """Write keys (n, gh, gw, d) float16, not centered, and small images (n, h, w, 3) uint8."""
    backbone = load_backbone("embedded")
    images = squares(PATCHES * backbone.patch_size)
    pixels = np.stack([normalised_pixels(image) for image in images])
    keys = backbone.extract(torch.from_numpy(pixels)).keys.numpy()
    np.savez_compressed(path, keys=keys.astype(np.float16), images=squares(CRF_SIDE))


if __name__ == "__main__":
    make_case(CASE)
