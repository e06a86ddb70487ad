"""Training data for MMDetection: the images table and a pseudo-label folder."""

# The classes of MMDetection and mmengine have no types.

import json
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, Sampler

from kernels import rle
from segmodels.detector.pseudo_labels import semantic_file
from segmodels.formats.arrow import read_table
from segmodels.formats.decode import read_image


@DATASETS.register_module(force=True)
class PseudoLabelDataset(BaseDataset):
    """Images with the pseudo labels of one clustering.

    Args:
        images_table: path of the images table (Arrow).
        pseudo_labels: folder with ``instances.json`` and ``semantic/``.
        splits: splits of the table to train on.
        keep_empty: also train on images without instances (U2Seg drops them).
        pipeline: MMDetection transforms.
    """

    def __init__(
        self,
        images_table: str,
        pseudo_labels: str,
        splits: Sequence[str] = ("train",),
        keep_empty: bool = False,
        **kwargs: Any,
    ) -> None:
        self.images_table = Path(images_table)
        self.pseudo_labels = Path(pseudo_labels)
        self.splits = tuple(splits)
        self.keep_empty = keep_empty
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the images that have pseudo labels, in the order of the images table."""
        content = json.loads((self.pseudo_labels / "instances.json").read_text(encoding="utf-8"))
        instances: dict[int, list[dict[str, Any]]] = {
            int(image["id"]): [] for image in content["images"]
        }
        for annotation in content["annotations"]:
            instances[int(annotation["image_id"])].append(
                {
                    "label": int(annotation["category_id"]) - 1,
                    "bbox": annotation["bbox"],
                    "counts": annotation["segmentation"]["counts"],
                }
            )
        columns = ["image_id", "source", "path", "height", "width", "split", "shard"]
        return [
            {
                "img_id": row["image_id"],
                "source": row["source"],
                "img_path": row["path"],
                "height": row["height"],
                "width": row["width"],
                "semantic": str(semantic_file(self.pseudo_labels, row["image_id"], row["shard"])),
                "instances": instances[row["image_id"]],
            }
            for row in read_table(self.images_table).select(columns).to_pylist()
            if row["image_id"] in instances and row["split"] in self.splits
        ]

    def filter_data(self) -> list[dict[str, Any]]:
        """Drop images without instances, unless ``keep_empty``.

        Raises:
            ValueError: no image is left.
        """
        kept = [record for record in self.data_list if self.keep_empty or record["instances"]]
        if not kept:
            raise ValueError(
                f"no image of split {'/'.join(self.splits)} in {self.images_table} has an "
                f"instance in {self.pseudo_labels}: nothing to train on"
            )
        return kept


@DATASETS.register_module(force=True)
class SeededStream(Dataset[dict[str, Any]]):
    """Endless training samples that depend on the seed and their position alone.

    Epoch e shuffles the images with (seed, e), and each sample is augmented with generators seeded
    by (seed, position). A resumed run therefore continues the same sequence, whatever the number of
    workers.

    Args:
        dataset: MMDetection configuration of the dataset.
        seed: of the order and the augmentation.
    """

    def __init__(self, dataset: dict[str, Any], seed: int) -> None:
        self.dataset: BaseDataset = DATASETS.build(dataset)
        self.seed = seed
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    @property
    def metainfo(self) -> dict[str, Any]:
        """Class names and palette of the underlying dataset."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Load the records (mmengine calls this before it builds the loader)."""
        self.dataset.full_init()

    def __len__(self) -> int:
        """Images in one epoch; positions go beyond it."""
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return the augmented sample at a position, which may be beyond the first epoch."""
        epoch, index = divmod(position, len(self.dataset))
        if self._order[0] != epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._order = (epoch, generator.permutation(len(self.dataset)))
        with _seeded_globals(self.seed, position):
            return self.dataset[int(self._order[1][index])]


@contextmanager
def _seeded_globals(seed: int, position: int) -> Iterator[None]:
    """Seed the global generators that MMDetection's transforms use, and restore them at the end."""
    words = np.random.SeedSequence([seed, position]).generate_state(2)
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(words[0])  # noqa: NPY002
    random.seed(int(words[1]))
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@DATA_SAMPLERS.register_module(force=True)
class PositionSampler(Sampler[int]):
    """Positions of a :class:`SeededStream` without end, interleaved over the processes.

    Args:
        dataset: the stream.
        seed: unused; mmengine passes it to every sampler.
    """

    def __init__(self, dataset: SeededStream, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.start = 0

    def __len__(self) -> int:
        """Return this process's share of one epoch."""
        return math.ceil(self.size / self.world_size)

    def __iter__(self) -> Iterator[int]:
        """Yield this process's positions, starting at its ``start``-th."""
        position = self.start * self.world_size + self.rank
        while True:
            yield position
            position += self.world_size


@TRANSFORMS.register_module(force=True)
class LoadTableImage(BaseTransform):
    """Read the image of a row of the images table: ``img`` (H, W, 3) uint8 RGB."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img``, ``img_shape`` and ``ori_shape``."""
        image = read_image(results["source"], results["img_path"])
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


@TRANSFORMS.register_module(force=True)
class LoadPseudoLabels(BaseTransform):
    """Read an image's boxes, labels, masks and semantic map, at its own size."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``gt_bboxes``, ``gt_bboxes_labels``, ``gt_ignore_flags``, ``gt_masks``, ``gt_seg_map``.

        Raises:
            ValueError: the semantic map and the image differ in size.
        """
        height, width = results["ori_shape"]
        instances = results["instances"]
        boxes = np.array([item["bbox"] for item in instances], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        results["gt_bboxes"] = HorizontalBoxes(boxes)
        results["gt_bboxes_labels"] = np.array([item["label"] for item in instances], np.int64)
        results["gt_ignore_flags"] = np.zeros(len(instances), dtype=bool)
        masks = rle.decode([item["counts"].encode("ascii") for item in instances], height, width)
        results["gt_masks"] = BitmapMasks(masks.astype(np.uint8), height, width)
        with Image.open(results["semantic"]) as semantic:
            results["gt_seg_map"] = np.array(semantic, dtype=np.uint8)
        if results["gt_seg_map"].shape != (height, width):
            raise ValueError(
                f"{results['semantic']} is {results['gt_seg_map'].shape} but its image is "
                f"{(height, width)}: recompute the pseudo labels from these images"
            )
        return results
