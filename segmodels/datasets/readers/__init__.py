"""Readers: each turns one layout of a data set into sources of images and ground truth.

A reader takes the root of the data set and its own options. Ground truth in another form than
COCO's is first written as COCO files, as the sample's reader does.
"""

from collections.abc import Callable

from segmodels.datasets.image_source import ImageSource
from segmodels.datasets.readers import coco, folder, sample

Reader = Callable[..., tuple[ImageSource, ...]]

READERS: dict[str, Reader] = {"folder": folder.read, "coco": coco.read, "sample": sample.read}
"""Reader by name of the layout."""
