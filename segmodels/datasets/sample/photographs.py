"""The photographs that ship inside scikit-image, read from its folder and never downloaded."""

from functools import cache
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from kernels.errors import ExNihiloError

FOLDER = Path(skimage.__file__).parent / "data"


class MissingPhotographError(ExNihiloError, FileNotFoundError):
    """The installed scikit-image does not carry a photograph that the sample is made of."""


@cache
def photograph(name: str) -> np.ndarray:
    """Return one photograph of scikit-image's own data folder.

    Args:
        name: file name, as in "coffee.png".

    Returns:
        (H, W, 3) float32 RGB in [0, 1], read-only; transparency is shown on white.

    Raises:
        MissingPhotographError: the file is not part of the installation.
    """
    path = FOLDER / name
    if not path.is_file():
        raise MissingPhotographError(
            f"{FOLDER} has no {name}; install scikit-image as named in constraints.txt"
        )
    with Image.open(path) as opened:
        image: Image.Image = opened
        if opened.mode == "RGBA":
            white = Image.new("RGBA", opened.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, opened)
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    pixels.setflags(write=False)
    return pixels
