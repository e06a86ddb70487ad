"""The embedded sample: composed on this machine, with instance and panoptic ground truth."""

from collections.abc import Callable
from pathlib import Path

from segmodels.datasets.image_source import ImageSource


def read(
    root: str, train: int = 72, val: int = 28, log: Callable[[str], None] | None = None
) -> tuple[ImageSource, ...]:
    """Compose the sample, unless it is there, and give its train and val source.

    Args:
        root: Folder in which the sample's own folder is created.
        train: Number of train images, at least 1.
        val: Number of val images, at least 1.
        log: Called with progress sentences.

    Raises:
        ValueError: A number is out of range.
    """
    from segmodels.datasets.sample.dataset import RECIPE, write_sample

    folder = Path(root) / f"sample_scenes-{RECIPE}-{train}-{val}"
    if log and not folder.exists():
        log(f"composing the embedded sample in {folder}")
    write_sample(folder, train=train, val=val, log=log)
    return sample_sources(folder)


def sample_sources(folder: Path) -> tuple[ImageSource, ...]:
    """Give the train and the val source of a written sample."""
    return tuple(
        ImageSource(
            images=str(folder / split),
            instances_json=str(folder / f"instances_{split}.json"),
            panoptic_json=str(folder / f"panoptic_{split}.json"),
            panoptic_folder=str(folder / f"panoptic_{split}"),
            split=split,
        )
        for split in ("train", "val")
    )
