"""What is measured on: real photographs and reference cases, or the embedded sample's images."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.options import Options

WIDTH = 768  # of the keys of ViT-B, the published backbone


def cases(options: Options) -> dict[str, NDArray[np.float32]]:
    """Keys (3600, 768) of six photographs on a 60 x 60 grid, by name.

    The reference cases' features have 40 values. An orthonormal map to 768 keeps every cosine,
    and with them the masks, and makes the affinity cost what it costs with ViT-B.
    """
    files = sorted((options.data / "reference" / "maskcut").glob("*.npz")) if options.data else []
    if files:
        return {file.stem: widened(np.load(file)["features"]) for file in files}
    images = photographs(options, 6)
    keys = vit_keys(images, 480)
    return {f"sample {index}": widened(key.reshape(3600, -1)) for index, key in enumerate(keys)}


def widened(keys: NDArray[np.float32], width: int = WIDTH) -> NDArray[np.float32]:
    """Keys (T, d) in a space of `width` dimensions, with the same cosines."""
    directions = np.random.default_rng(0).standard_normal((width, keys.shape[1]))
    orthonormal = np.linalg.qr(directions)[0].astype(np.float32)
    return np.ascontiguousarray(keys @ orthonormal.T, np.float32)


def photographs(options: Options, count: int) -> list[NDArray[np.uint8]]:
    """Up to `count` images (H, W, 3) uint8 RGB."""
    from segmodels.formats.decode import read_image

    return [read_image(path.parent, path.name) for path in photograph_files(options, count)]


def photograph_files(options: Options, count: int) -> list[Path]:
    """Up to `count` image files: ECSSD's and COCO's parts, or the embedded sample's."""
    if options.data:
        ecssd = sorted((options.data / "data" / "ecssd" / "images").glob("*.jpg"))
        coco = sorted((options.data / "data" / "coco" / "images").rglob("*.jpg"))
        return (ecssd + coco)[:count]
    return sorted((Path(_sample_folder().name) / "sample" / "train").iterdir())[:count]


@lru_cache
def _sample_folder() -> "TemporaryDirectory[str]":
    """The sample, written once; removed when the process ends and drops this."""
    from segmodels.datasets.sample.dataset import write_sample

    folder = TemporaryDirectory(prefix="exnihilo-bench-")
    write_sample(Path(folder.name) / "sample", train=24, val=1)
    return folder


def vit_keys(images: list[NDArray[np.uint8]], size: int) -> list[NDArray[np.float32]]:
    """Keys (grid, grid, d) of the embedded backbone at one input size, centred as it asks for."""
    import torch

    from kernels.ncut.keys import center_keys
    from segmodels.backbones import load_backbone
    from segmodels.backbones.pixels import normalised_pixels, resize_square

    backbone = load_backbone("embedded")
    keys = []
    for image in images:
        pixels = torch.from_numpy(normalised_pixels(resize_square(image, size)))
        raw = backbone.extract(pixels[None]).keys[0].cpu().numpy()
        keys.append(center_keys(raw) if backbone.center_keys else raw)
    return keys
