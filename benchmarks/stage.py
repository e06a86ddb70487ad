"""The mask stage from files to a stored table: throughput, memory, and where the time goes."""

import argparse
import json
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import zarr

from benchmarks.inputs import photograph_files, photographs, vit_keys, widened
from benchmarks.options import Options
from benchmarks.tables import Table
from benchmarks.timing import spelled, time_each
from segmodels.cutler.maskcut import MaskCutSettings
from segmodels.datasets.images import IMAGES_SCHEMA

SIZE, GRID, UNIQUE = 480, 60, 20


def run(options: Options) -> list[Table]:
    """Measure; the full run cuts some 1,300 images, six minutes."""
    with TemporaryDirectory(prefix="exnihilo-stage-") as name:
        folder = Path(name)
        files = photograph_files(options, UNIQUE)
        write_features(options, folder)
        counts = (4, 8) if options.quick else (10, 50, 200, 1000)
        rows = [measured(files, count, folder) for count in counts]
    throughput = Table(
        f"`maskcut_shard` on photographs with keys (3,600 x 768): decoding, three cuts, CRF at "
        f"{SIZE} px, resizing, run-length codes and the Arrow table, in a process of its own; "
        "start-up and compiling are left out of the time, and in the memory.",
        ["images", "time", "an image", "peak memory"],
        rows,
    )
    return [throughput, parts(options), precisions(options)]


def settings() -> MaskCutSettings:
    """MaskCut as published."""
    return MaskCutSettings(image_size=SIZE)


def write_features(options: Options, folder: Path) -> None:
    """A feature shard of UNIQUE photographs with 768-dimensional keys."""
    keys = zarr.create_array(
        folder / "features.zarr" / "keys",
        shape=(UNIQUE, GRID, GRID, 768),
        chunks=(1, GRID, GRID, 768),
        dtype=np.float16,
        compressors=None,
    )
    for row, image in enumerate(photographs(options, UNIQUE)):
        (key,) = vit_keys([image], SIZE)
        keys[row] = widened(key.reshape(GRID * GRID, -1)).reshape(GRID, GRID, 768)
    group = zarr.open_group(folder / "features.zarr", mode="a")
    group.create_array("cls", data=np.zeros((UNIQUE, 1), np.float32))
    group.create_array("image_id", data=np.arange(UNIQUE))


def measured(files: list[Path], count: int, folder: Path) -> list[str]:
    """One row: the stage on `count` images, the photographs again and again."""
    listing = folder / f"{count}.json"
    listing.write_text(json.dumps([str(files[row % len(files)]) for row in range(count)]))
    command = [sys.executable, "-m", "benchmarks.stage", str(listing), str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(output)
    return [
        f"{count:,}",
        spelled(result["seconds"]),
        spelled(result["seconds"] / count),
        f"{result['peak_kib'] / 2**20:.2f} GiB",
    ]


def cut_listed(listing: Path, folder: Path) -> None:
    """Run the stage on listed files in this process and print seconds and peak memory."""
    from segmodels.cutler.maskcut_shards import MaskCutShard, maskcut_shard

    paths = [Path(name) for name in json.loads(listing.read_text())]
    rows = [
        {
            "image_id": row % UNIQUE,
            "source": str(path.parent),
            "path": path.name,
            "height": 0,
            "width": 0,
            "sha256": "",
            "split": "train",
            "shard": 0,
        }
        for row, path in enumerate(paths)
    ]
    images = pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)
    maskcut_shard(MaskCutShard(images.slice(0, 2), folder, settings()), folder)
    start = time.perf_counter()
    maskcut_shard(MaskCutShard(images, folder, settings()), folder)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    print(json.dumps({"seconds": seconds, "peak_kib": int(peak[1])}))


def parts(options: Options) -> Table:
    """What one image costs in one thread, part by part."""
    import numba
    from threadpoolctl import threadpool_limits

    from kernels.crf import refine_masks
    from kernels.ncut import maskcut
    from segmodels.backbones.pixels import resize_square
    from segmodels.cutler.maskcut import refine_patch_masks
    from segmodels.formats.decode import read_image
    from segmodels.formats.masks import mask_row

    path = photograph_files(options, 1)[0]
    photograph = read_image(path.parent, path.name)
    small = resize_square(photograph, SIZE)
    keys = widened(vit_keys([photograph], SIZE)[0].reshape(GRID * GRID, -1))
    patch_masks = maskcut(keys, (GRID, GRID)).masks
    coarse = patch_masks.repeat(SIZE // GRID, axis=1).repeat(SIZE // GRID, axis=2)
    (found,) = refine_patch_masks([photograph], patch_masks[None], settings())
    calls = {
        "decode and resize": lambda: resize_square(read_image(path.parent, path.name), SIZE),
        "three cuts": partial(maskcut, keys, (GRID, GRID)),
        "CRF of three masks": partial(refine_masks, small, coarse),
        "CRF, holes, scores, back to the photograph's size": partial(
            refine_patch_masks, [photograph], patch_masks[None], settings()
        ),
        "rows of the table": lambda: [
            mask_row(1, row, mask.mask, score=1.0, source="maskcut", round=0)
            for row, mask in enumerate(found)
        ],
    }
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            timed = time_each(calls, repeats=7)
    finally:
        numba.set_num_threads(threads)
    return Table(
        f"One photograph of {photograph.shape[1]} x {photograph.shape[0]} px, one thread.",
        ["part", "time"],
        [[name, spelled(timing.median)] for name, timing in timed.items()],
    )


def precisions(options: Options) -> Table:
    """The embedded backbone in float32 and bfloat16: time, and the masks' agreement."""
    import torch

    from kernels.ncut import maskcut
    from kernels.ncut.keys import center_keys
    from segmodels.backbones import load_backbone
    from segmodels.backbones.pixels import normalised_pixels, resize_square

    backbone = load_backbone("embedded")
    size = backbone.image_size
    grid = size // backbone.patch_size
    images = photographs(options, 4 if options.quick else 60)
    batches = [torch.from_numpy(normalised_pixels(resize_square(i, size)))[None] for i in images]
    calls = {name: partial(backbone.extract, batches[0], name) for name in ("float32", "bfloat16")}
    timed = time_each(calls, repeats=7)

    def masks(precision: str) -> np.ndarray:
        found = []
        for batch in batches:
            keys = backbone.extract(batch, precision).keys[0].numpy().astype(np.float16)
            flat = keys.reshape(grid * grid, -1).astype(np.float32)
            chosen = center_keys(flat) if backbone.center_keys else flat
            found.append(maskcut(chosen, (grid, grid), tau=backbone.tau).masks)
        return np.concatenate(found)

    exact = masks("float32")
    rows = []
    for name, timing in timed.items():
        same = masks(name)
        identical = np.mean((same == exact).all(axis=(1, 2)))
        rows.append(
            [
                name,
                spelled(timing.median),
                f"{timed['float32'].median / timing.median:.2f} x",
                f"{identical:.1%}",
                f"{np.mean(same == exact):.2%}",
            ]
        )
    return Table(
        f"The embedded backbone's forward pass at {size} px, and the masks of {len(images)} "
        "photographs against those of float32.",
        ["precision", "an image", "speed", "identical masks", "equal patches"],
        rows,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stage")
    parser.add_argument("listing", type=Path, help="JSON list of image files")
    parser.add_argument("folder", type=Path, help="holds features.zarr; masks.arrow comes here")
    given = parser.parse_args()
    cut_listed(given.listing, given.folder)
