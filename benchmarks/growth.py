"""How the sharded table stages grow with the number of images: time an image, and peak memory.

The images do not exist. Their masks are drawn from a seeded pool with COCO-like counts: some three
things and six stuff segments an image.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import ndimage

from assets.stages.shards import ShardRunner, ShardSet, ShardTask, materialise_shards
from assets.stages.store import Dataset, Store, digest_of
from benchmarks.options import Options
from benchmarks.tables import Table
from segmodels.cutler.thing_masks import ThingMaskSettings, ThingMaskShard, thing_mask_shard
from segmodels.datasets.images import IMAGES_SCHEMA
from segmodels.formats.arrow import write_table
from segmodels.formats.masks import MASK_SCHEMA, mask_row
from segmodels.formats.stuff import stuff_rows, stuff_table
from segmodels.u2seg.clusters import CLUSTER_SCHEMA
from segmodels.u2seg.label_export import LabelShard, label_shard
from segmodels.u2seg.label_index import write_label_index
from segmodels.u2seg.labels import LabelSettings

SHARD = 64
CLUSTERS, STUFF = 300, 27
COCO_SIZE, PHOTO_SIZE, SMALL_SIZE = (375, 500), (3000, 4000), (120, 160)
_POOL = 16


class Scene:
    """Random blobs of one image size: things that overlap, and a map of stuff."""

    def __init__(self, size: tuple[int, int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        grid = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
        count = int(np.clip(rng.poisson(3), 1, 8))
        wobble = ndimage.zoom(rng.normal(size=(12, 16)), np.array(size) / (12, 16), order=1)
        self.things = []
        for _ in range(count):
            centre, radius = rng.random(2), rng.uniform(0.08, 0.35)
            distance = np.hypot(*(grid - centre[:, None, None]))
            self.things.append(distance + 0.03 * wobble < radius)
        self.scores = rng.random(count)
        seeds = rng.random((int(rng.integers(4, 9)), 2))
        far = [np.hypot(*(grid - one[:, None, None])) + 0.05 * wobble for one in seeds]
        chosen = rng.choice(STUFF, len(seeds), replace=False).astype(np.uint8)
        self.stuff = chosen[np.argmin(far, axis=0)]
        self.size = size


class Rows:
    """The rows of N images as stages store them, by shard of `SHARD` images."""

    def __init__(self, folder: Path, count: int, size: tuple[int, int]) -> None:
        self.folder = folder
        self.shards = range(-(-count // SHARD))
        self.count = count
        scenes = [Scene(size, seed) for seed in range(min(_POOL, count))]
        things = [[mask_row(0, 0, mask, score=score, source="maskcut", round=0)
                   for mask, score in zip(scene.things, scene.scores, strict=True)]
                  for scene in scenes]  # fmt: skip
        stuff = [stuff_rows(0, scene.stuff) for scene in scenes]
        clusters, rng = [], np.random.default_rng(0)
        for shard in self.shards:
            ids = [int(one) for one in self.images(shard, size)["image_id"].to_numpy()]
            own = [row | {"image_id": image, "instance_id": 1000 * image + position}
                   for image in ids for position, row in enumerate(things[image % _POOL])]  # fmt: skip
            clusters += [row["instance_id"] for row in own]
            table = pa.Table.from_pylist(own, schema=MASK_SCHEMA)
            write_table(table, folder / f"{shard}-masks.arrow")
            table = stuff_table([row | {"image_id": i} for i in ids for row in stuff[i % _POOL]])
            write_table(table, folder / f"{shard}-stuff.arrow")
        labels = rng.integers(0, CLUSTERS, len(clusters)).astype(np.int32)
        table = pa.table([clusters, labels, labels.astype(np.float32)], schema=CLUSTER_SCHEMA)
        write_table(table, folder / "clusters.arrow")

    def images(self, shard: int, size: tuple[int, int]) -> pa.Table:
        """IMAGES_SCHEMA rows of one shard."""
        stop = min((shard + 1) * SHARD, self.count)
        rows = [
            {"image_id": number, "source": "/images", "path": f"{number}.jpg", "height": size[0],
             "width": size[1], "sha256": "", "split": "train", "shard": shard}
            for number in range(shard * SHARD, stop)
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)


def run(options: Options) -> list[Table]:
    """Measure growth, and the labels of one image by its size."""
    counts = (256, 1024) if options.quick else (1000, 4000, 16000)
    return [_growth(counts), _one_image(3 if options.quick else 9)]


def _growth(counts: tuple[int, ...]) -> Table:
    rows = []
    for count in counts:
        # A process of its own: peak memory is counted once in the life of a process.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows += pool.apply(_measured, (count,))
    return Table(
        f"Sharded stages by number of images, one process, {SMALL_SIZE[0]} x {SMALL_SIZE[1]} px, "
        f"shards of {SHARD}",
        ("stage", "images", "CPU ms an image", "peak memory, MB"),
        rows,
    )


def _measured(count: int) -> list[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = Rows(folder, count, SMALL_SIZE)
        store = Store(root=str(folder / "store"), dataset=Dataset(name="growth"))
        measured = []
        for stage, tasks in (("thing_masks", _things), ("pseudo_labels", _labels)):
            started = time.process_time()
            materialise_shards(
                store.stage(stage),
                list(tasks(rows)),
                ShardRunner(),
                settings=LabelSettings(),
                log=lambda _: None,
                reduce=_index if stage == "pseudo_labels" else None,
            )
            spent = (time.process_time() - started) / count
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            measured.append((stage, f"{count:,}", f"{1000 * spent:.2f}", f"{peak:.0f}"))
        return measured


def _index(shards: ShardSet, folder: Path) -> None:
    write_label_index(shards.folders, folder, CLUSTERS, STUFF)


def _things(rows: Rows) -> Iterator[ShardTask]:
    for shard in rows.shards:
        ids = rows.images(shard, SMALL_SIZE)["image_id"].to_pylist()
        masks = rows.folder / f"{shard}-masks.arrow"
        work = ThingMaskShard(ids, masks, ThingMaskSettings())
        yield ShardTask(shard, digest_of(shard), thing_mask_shard, work)


def _labels(rows: Rows) -> Iterator[ShardTask]:
    for shard in rows.shards:
        yield ShardTask(shard, digest_of(shard), label_shard, _label_work(rows, shard, SMALL_SIZE))


def _label_work(rows: Rows, shard: int, size: tuple[int, int]) -> LabelShard:
    return LabelShard(
        rows.images(shard, size),
        rows.folder / f"{shard}-masks.arrow",
        rows.folder / "clusters.arrow",
        rows.folder / f"{shard}-stuff.arrow",
        CLUSTERS,
        STUFF,
        LabelSettings(),
    )


def _one_image(repeats: int) -> Table:
    """CPU seconds of the labels of an image, by its size: the median over shards of eight."""
    lines = []
    for height, width in (COCO_SIZE, PHOTO_SIZE):
        images = 8
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            work = _label_work(Rows(folder, images, (height, width)), 0, (height, width))
            spent = []
            for number in range(repeats):
                (folder / str(number)).mkdir()
                started = time.process_time()
                label_shard(work, folder / str(number))
                spent.append((time.process_time() - started) / images)
        size = f"{height} x {width}"
        lines.append((size, f"{1000 * np.median(spent):.1f}", f"{1000 * min(spent):.1f}"))
    return Table("`pseudo_labels` by image size", ("image, px", "CPU ms an image", "least"), lines)
