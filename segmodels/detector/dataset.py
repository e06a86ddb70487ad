"""Training data: the images table and a pseudo-label folder, read for MMDetection's pipeline."""

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
from segmodels.formats.arrow import read_table
from segmodels.formats.decode import read_image

MAX_STUFF = 254  # semantic maps are bytes: 0 is thing, 255 is void


def count_clusters(pseudo_labels: str | Path) -> tuple[int, int]:
    """Numbers of thing and of stuff clusters (K, S) of a pseudo-label folder.

    Raises:
        ValueError: the folder is incomplete or has more stuff clusters than a byte can name.
    """
    path = Path(pseudo_labels) / "panoptic.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {pseudo_labels} is not a pseudo-label folder")
    categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
    things = sum(bool(category["isthing"]) for category in categories)
    stuff = len(categories) - things
    if stuff > MAX_STUFF:
        raise ValueError(f"at most {MAX_STUFF} stuff clusters can be trained, got {stuff}")
    return things, stuff


@DATASETS.register_module(force=True)
class PseudoLabelDataset(BaseDataset):
    """Images with the pseudo-labels of one clustering.

    Args:
        images_table: path of the images table (Arrow).
        pseudo_labels: folder with ``instances.json`` and ``semantic/<stem>.png``.
        splits: splits of the table to train on.
        keep_empty: also train on images without any instance (U2Seg leaves them out).
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
        """One record an image that has pseudo-labels, in the order of the images table."""
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
        columns = ["image_id", "source", "path", "height", "width", "split"]
        return [
            {
                "img_id": row["image_id"],
                "source": row["source"],
                "img_path": row["path"],
                "height": row["height"],
                "width": row["width"],
                "semantic": str(self.pseudo_labels / "semantic" / f"{row['image_id']:012d}.png"),
                "instances": instances[row["image_id"]],
            }
            for row in read_table(self.images_table).select(columns).to_pylist()
            if row["image_id"] in instances and row["split"] in self.splits
        ]

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out images without instances, unless they are to be kept.

        Raises:
            ValueError: nothing is left to train on.
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
    """Endless training stream: what stands at a position depends on seed and position alone.

    Pass p shuffles the images with (seed, p), and every sample is augmented with a generator
    seeded by (seed, position); so a resumed run continues the very sequence it left, with any
    number of workers.

    Args:
        dataset: configuration of the dataset to draw from.
        seed: seed of order and augmentation.
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
        """Load the records (mmengine calls this before it makes a loader)."""
        self.dataset.full_init()

    def __len__(self) -> int:
        """Number of images in one pass; positions go beyond it."""
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The augmented sample at an endless position."""
        pass_index, place = divmod(position, len(self.dataset))
        if self._order[0] != pass_index:
            generator = np.random.default_rng([self.seed, pass_index])
            self._order = (pass_index, generator.permutation(len(self.dataset)))
        with _seeded_globals(self.seed, position):
            return self.dataset[int(self._order[1][place])]


@contextmanager
def _seeded_globals(seed: int, position: int) -> Iterator[None]:
    """Seed the global generators that MMDetection's transforms draw from, then restore them."""
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
    """Endless positions of a :class:`SeededStream`, interleaved over the processes.

    Args:
        dataset: the stream.
        seed: unused; mmengine passes it to every sampler.
    """

    def __init__(self, dataset: SeededStream, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.start = 0

    def __len__(self) -> int:
        """This process's share of one pass."""
        return math.ceil(self.size / self.world_size)

    def __iter__(self) -> Iterator[int]:
        """Yield this process's positions, from its ``start``-th on."""
        position = self.start * self.world_size + self.rank
        while True:
            yield position
            position += self.world_size


@TRANSFORMS.register_module(force=True)
class LoadPhotograph(BaseTransform):
    """Read the pixels of a record: ``img`` (H, W, 3) uint8 RGB."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img`` and its sizes."""
        image = read_image(results["source"], results["img_path"])
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


@TRANSFORMS.register_module(force=True)
class LoadPseudoLabels(BaseTransform):
    """Read a record's boxes, labels, masks and semantic map at the image's size."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add MMDetection's ``gt_*`` entries.

        Raises:
            ValueError: the semantic map has another size than the image.
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
                f"{(height, width)}: make the pseudo-labels again from these images"
            )
        return results
