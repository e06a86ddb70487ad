"""Stage images: reads every file of the sources once; lists images, and rejected files by reason."""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa

from assets.stages.metadata import image_sheet, table_metadata
from assets.stages.settings import read_remembered
from assets.stages.stage import Result, StageRun, result, stage
from assets.stages.store import StageFolder, Version
from segmodels.datasets.image_source import ImageSource, sources_state
from segmodels.datasets.readers import READERS
from segmodels.datasets.scan import ScanResult, scan_sources
from segmodels.formats.arrow import column_values, read_table, rows_in, write_table
from segmodels.formats.atomic import write_text
from segmodels.formats.errors import InputError

if TYPE_CHECKING:
    from segmodels.datasets.ground_truth import GroundTruth


@dataclass(frozen=True)
class ImagesSettings:
    """Sources of the images, and what is taken from them."""

    sample: bool = False
    sample_train: int = 72
    sample_val: int = 28
    sources: tuple[ImageSource, ...] = ()
    shard_size: int = 64
    max_pixels: int = 100_000_000
    evaluation_fraction: float = 0.0
    max_rejected_share: float = 0.1
    stuff_grouping: str = "none"
    merge_stuff_segments: bool = False


class InputPaths(dg.ConfigurableResource):
    """Images and annotations named by the environment, "" where it names none."""

    images: str = ""
    annotations: str = ""


@stage(
    group="data",
    settings=ImagesSettings,
    described={
        "sample": "Compose the embedded sample instead of reading images.",
        "sample_train": "Train images of the sample.",
        "sample_val": "Val images of the sample.",
        "sources": "Where images lie, see `ImageSource`; without them EXNIHILO_IMAGES and "
        "EXNIHILO_ANNOTATIONS name them.",
        "shard_size": "Images a shard.",
        "max_pixels": "Larger images are rejected.",
        "evaluation_fraction": "Share of the annotated images that is scored and not trained on.",
        "max_rejected_share": "More rejected images than this fail the run.",
        "stuff_grouping": "Label map of ground-truth stuff: none, or coco15 (U2Seg's 15 groups).",
        "merge_stuff_segments": "Merge ground-truth segments of one stuff group in an image.",
    },
    version="2",
    kinds={"arrow"},
)
def images(run: StageRun[ImagesSettings], inputs: InputPaths) -> Result:
    """The tables of all images, and of the files that were rejected."""
    settings = _with_sources(run, inputs)
    sources = _sources(settings, run.stage.path.parent, run.log)

    def compute(folder: Path) -> dict[str, Any]:
        scan = scan_sources(
            sources,
            previous=_known_images(run.stage),
            shard_size=settings.shard_size,
            max_pixels=settings.max_pixels,
            evaluation_fraction=settings.evaluation_fraction,
            log=run.log,
        )
        _check_rejected(scan, settings.max_rejected_share, run.stage.path / "rejected.arrow")
        return _write(folder, scan, sources, settings)

    version = run.materialise(compute, sources, sources_state(sources), settings=settings)
    table = read_table(version.folder / "images.arrow")
    summary = version.summary
    run.log(
        f"images: {summary['images']}; rejected: {summary['rejected']}"
        f"{_counts(summary['rejected_by_reason'])}; other files: {summary['other_files']}"
    )
    return result(
        version,
        {
            **table_metadata(table),
            "rejected_images": summary["rejected"],
            "rejected_by_reason": dg.MetadataValue.json(summary["rejected_by_reason"]),
            "other_files": summary["other_files"],
            "train": summary["train"],
            "val": summary["val"],
            "preview": image_sheet(table),
        },
    )


def _known_images(stage: StageFolder) -> pa.Table | None:
    """The images of the last version, which keep their ids; None where there is none to read."""
    version = stage.current()
    try:
        return None if version is None else read_images(version)
    except (OSError, ValueError):  # lost or damaged: this run replaces it
        return None


def _with_sources(run: StageRun[ImagesSettings], inputs: InputPaths) -> ImagesSettings:
    """Settings whose sources are this run's config's, else the environment's, else the last run's.

    `StageRun.settings` does not read the environment; only this stage's sources are named there.

    Raises:
        InputError: The sources share no image root with those of the last run.
    """
    remembered = read_remembered(run.stage).get("sources", ())
    old_sources = tuple(ImageSource(**source) for source in remembered)
    settings = run.settings
    if "sources" not in run.given and inputs.images and not run.given.get("sample"):
        sources = (
            READERS["coco"](inputs.images, inputs.annotations)
            if inputs.annotations
            else READERS["folder"](inputs.images)
        )
        settings = replace(settings, sources=sources)
    if "sample" not in run.given and ("sources" in run.given or inputs.images):
        settings = replace(settings, sample=False)
    _refuse_other_images(old_sources, settings.sources, run.stage)
    return settings


def _refuse_other_images(
    old: tuple[ImageSource, ...], new: tuple[ImageSource, ...], stage: StageFolder
) -> None:
    """Refuse to replace all images of a data set, as two folders of one name would."""
    old_roots, new_roots = (
        [os.path.abspath(os.path.expanduser(source.images)) for source in sources]
        for sources in (old, new)
    )
    if old_roots and new_roots and not set(old_roots) & set(new_roots):
        raise InputError(
            f"dataset {stage.dataset!r} holds the images of {', '.join(old_roots)}, but this run "
            f"names {', '.join(new_roots)}: give them a dataset of their own (make run "
            "DATASET=..., EXNIHILO_DATASET, or resources.dataset.config.name in the run config), "
            f"or delete {stage.path.parent / 'settings' / 'images.json'} to replace the old images"
        )


def _sources(
    settings: ImagesSettings, root: Path, log: Callable[[str], None]
) -> tuple[ImageSource, ...]:
    if settings.sample:
        return READERS["sample"](str(root), settings.sample_train, settings.sample_val, log)
    if settings.sources:
        return settings.sources
    raise InputError(
        "no images were named: set EXNIHILO_IMAGES to a folder (make run IMAGES=...), or "
        "resources.dataset.config.stages.images.sources in the run config"
    )


def _check_rejected(scan: ScanResult, max_share: float, path: Path) -> None:
    """Write the rejected files to `path` if they are more than the allowed share.

    Raises:
        InputError: They are.
    """
    path.unlink(missing_ok=True)
    rejected = scan.rejected.num_rows
    seen = scan.images.num_rows + rejected
    if rejected > max_share * seen:
        write_table(scan.rejected, path)
        example = column_values(scan.rejected, "path")[0]
        raise InputError(
            f"{rejected} of {seen} images were rejected{_counts(_reasons(scan))}, for example "
            f"{example!r}, more than max_rejected_share={max_share:g} allows; {path} lists them: "
            "repair the files or raise that setting"
        )


def _reasons(scan: ScanResult) -> dict[str, int]:
    return dict(Counter(column_values(scan.rejected, "reason")))


def _counts(reasons: dict[str, int]) -> str:
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f" ({listed})" if listed else ""


def _write(
    folder: Path, scan: ScanResult, sources: tuple[ImageSource, ...], settings: ImagesSettings
) -> dict[str, Any]:
    write_table(scan.images, folder / "images.arrow")
    write_table(scan.rejected, folder / "rejected.arrow")
    record = {
        "sources": [asdict(source) for source in sources],
        "stuff_grouping": settings.stuff_grouping,
        "merge_stuff_segments": settings.merge_stuff_segments,
    }
    write_text(folder / "dataset.json", json.dumps(record, indent=1, sort_keys=True))
    splits = column_values(scan.images, "split")
    return {
        "images": scan.images.num_rows,
        "rejected": scan.rejected.num_rows,
        "rejected_by_reason": _reasons(scan),
        "other_files": scan.num_other_files,
        "train": splits.count("train"),
        "val": splits.count("val"),
    }


@dataclass(frozen=True)
class DatasetSources:
    """The sources of a data set, and how its ground truth is read."""

    sources: tuple[ImageSource, ...]
    stuff_grouping: str
    merge_stuff_segments: bool

    def ground_truth(self, table: pa.Table) -> "GroundTruth | None":
        """Ground truth of these images; None if none of them is annotated."""
        from segmodels.datasets.ground_truth import load_ground_truth

        if not any(source.annotated for source in self.sources):
            return None
        truth = load_ground_truth(
            self.sources,
            table,
            stuff_grouping=self.stuff_grouping,
            merge_stuff_segments=self.merge_stuff_segments,
        )
        return truth if truth.instance_image_ids or truth.panoptic_image_ids else None


def dataset_sources(version: Version) -> DatasetSources:
    """The sources that a version of this stage was read from."""
    record = json.loads((version.folder / "dataset.json").read_text())
    record["sources"] = tuple(ImageSource(**source) for source in record["sources"])
    return DatasetSources(**record)


def read_images(version: Version) -> pa.Table:
    """The images table of a version of this stage."""
    return read_table(version.folder / "images.arrow")


def train_images(version: Version) -> pa.Table:
    """The images of the train split."""
    return rows_in(read_images(version), "split", ["train"])


def shards_of(table: pa.Table) -> dict[int, pa.Table]:
    """The images table by shard number, ascending."""
    numbers = table["shard"].to_numpy()
    order = np.argsort(numbers, kind="stable")
    shards, starts = np.unique(numbers[order], return_index=True)
    # Rows of one chunk are taken in time that does not grow with the table; a slice would be
    # sent to a worker with all of it.
    whole = table.combine_chunks()
    rows = np.split(order, starts[1:])
    return {int(shard): whole.take(own) for shard, own in zip(shards, rows, strict=True)}


def identity_of(table: pa.Table) -> list[list[object]]:
    """Ids and content hashes: what results computed from these images depend on."""
    return [list(row.values()) for row in table.select(["image_id", "sha256"]).to_pylist()]
