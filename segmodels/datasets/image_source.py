"""A source of images: an image root with its annotation files, and the state of its files."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from segmodels.datasets.listing import absolute_root, walk
from segmodels.formats.coco import CocoInstances, read_instances
from segmodels.formats.errors import AnnotationError, InputError
from segmodels.formats.panoptic import CocoPanoptic, read_panoptic
from segmodels.formats.tar import is_tar

SPLITS = ("train", "val")


@dataclass(frozen=True)
class ImageSource:
    """One image root, with or without ground truth.

    Attributes:
        images: A folder of any depth, a .tar, or a folder of .tar files.
        instances_json: COCO instance file of these images.
        panoptic_json: COCO panoptic file of these images.
        panoptic_folder: Its PNGs; None for the path of the json without ".json".
        split: "train", or "val" for images that are scored and not trained on.
    """

    images: str
    instances_json: str | None = None
    panoptic_json: str | None = None
    panoptic_folder: str | None = None
    split: str = "train"

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        if self.split not in SPLITS:
            raise InputError(f"split of {self.images} must be train or val, got {self.split!r}")
        if self.panoptic_folder is not None and self.panoptic_json is None:
            raise InputError(
                f"{self.images} has a panoptic_folder without panoptic_json; set panoptic_json"
            )

    @property
    def annotated(self) -> bool:
        """Whether there is ground truth."""
        return self.instances_json is not None or self.panoptic_json is not None


def sources_state(sources: Iterable[ImageSource]) -> str:
    """Hash the names, sizes and modification times of all files of the sources.

    Raises:
        InputError: A root or an annotation file does not exist.
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(repr(sorted(asdict(source).items())).encode("utf-8", "surrogateescape"))
        root = absolute_root(source.images)
        names = [found.path for found in walk(root)] if not is_tar(root) else [""]
        _add_state(digest, root, names)
        for file in (source.instances_json, source.panoptic_json):
            if file is not None:
                _add_state(digest, file, [""])
        folder = _panoptic_folder(source)
        if folder is not None and folder.is_dir():
            _add_state(digest, str(folder), [found.path for found in walk(str(folder))])
    return digest.hexdigest()


def read_annotations(source: ImageSource) -> tuple[CocoInstances | None, CocoPanoptic | None]:
    """Read and check the annotation files of one source.

    Raises:
        InputError: See `read_instances` and `read_panoptic`.
        AnnotationError: The two files contradict each other.
    """
    instances = read_instances(source.instances_json) if source.instances_json else None
    panoptic = (
        read_panoptic(source.panoptic_json, source.panoptic_folder)
        if source.panoptic_json
        else None
    )
    if instances is not None and panoptic is not None:
        _refuse_contradiction(source, instances, panoptic)
    return instances, panoptic


def _refuse_contradiction(
    source: ImageSource, instances: CocoInstances, panoptic: CocoPanoptic
) -> None:
    files = f"{source.instances_json} and {source.panoptic_json}"
    ids = {image.file_name: image.id for image in instances.images.values()}
    for image in panoptic.images.values():
        other = instances.images.get(image.id, image)
        if other != image or ids.get(image.file_name, image.id) != image.id:
            raise AnnotationError(
                f"{files} disagree on image {image.id}, {image.file_name!r} (id, file name, "
                "height or width); give files of the same images"
            )
    for category in panoptic.categories.values():
        twin = instances.categories.get(category.id)
        if twin is not None and twin.name != category.name:
            raise AnnotationError(
                f"{files} disagree on category {category.id} ({twin.name!r} and "
                f"{category.name!r}); give files of the same classes"
            )


def _panoptic_folder(source: ImageSource) -> Path | None:
    if source.panoptic_folder is not None:
        return Path(source.panoptic_folder)
    return None if source.panoptic_json is None else Path(source.panoptic_json).with_suffix("")


def _add_state(digest: "hashlib._Hash", root: str, names: Iterable[str]) -> None:
    for name in names:
        path = os.path.join(root, name) if name else root
        try:
            status = os.stat(path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError as error:
            if not name:
                raise InputError(
                    f"{path} cannot be read ({error.strerror}); correct its path"
                ) from error
            state = "unreadable"
        digest.update(f"{name}\0{state}\0".encode("utf-8", "surrogateescape"))
