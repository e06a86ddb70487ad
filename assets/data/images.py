"""Stage images: reads every file of the sources once; lists images, and rejected files by reason."""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from assets.stages.metadata import image_sheet, table_metadata
from assets.stages.partitions import require_partitions
from assets.stages.run import materialise, result
from assets.stages.settings import StageConfig, given_settings, read_remembered
from assets.stages.store import StageFolder, Store, Version, digest_of
from segmodels.datasets.image_source import ImageSource, sources_state
from segmodels.datasets.readers import READERS
from segmodels.datasets.scan import ScanResult, scan_sources
from segmodels.formats.arrow import column_values, read_table, rows_in, write_table
from segmodels.formats.atomic import write_text
from segmodels.formats.errors import InputError

if TYPE_CHECKING:
    from segmodels.datasets.ground_truth import GroundTruth

CODE_VERSION = "1"


class SourceConfig(dg.Config):
    """A source of images, see `segmodels.datasets.image_source.ImageSource`."""

    images: str = Field(description="A folder of any depth, a .tar, or a folder of .tar files.")
    instances_json: str | None = None
    panoptic_json: str | None = None
    panoptic_folder: str | None = None
    split: str = Field(default="train", description="train, or val: scored and not trained on.")


class ImagesConfig(StageConfig):
    """Sources of the images; without them, EXNIHILO_IMAGES and EXNIHILO_ANNOTATIONS name them."""

    sample: bool | None = Field(
        default=None, description="Compose the embedded sample instead of reading images."
    )
    sample_train: int | None = Field(
        default=None, description="Train images of the sample. Default: 72."
    )
    sample_val: int | None = Field(
        default=None, description="Val images of the sample. Default: 28."
    )
    sources: list[SourceConfig] | None = None
    shard_size: int | None = Field(default=None, description="Images a shard. Default: 64.")
    max_pixels: int | None = Field(default=None, description="Default: 100 million.")
    evaluation_fraction: float | None = Field(
        default=None,
        description="Share of the annotated images that is scored and not trained on. Default: 0.",
    )
    max_rejected_share: float | None = Field(
        default=None, description="More rejected images than this fail the run. Default: 0.1."
    )
    stuff_grouping: str | None = Field(
        default=None,
        description="Label map of ground-truth stuff: none, or coco15 (U2Seg's 15 groups).",
    )
    merge_stuff_segments: bool | None = Field(
        default=None, description="Merge ground-truth segments of one stuff group in an image."
    )


@dataclass(frozen=True)
class ImagesSettings:
    """Settings of the images stage, see ImagesConfig."""

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


@dg.asset(group_name="data", code_version=CODE_VERSION, kinds={"arrow"})
def images(
    context: dg.AssetExecutionContext, config: ImagesConfig, store: Store, inputs: InputPaths
) -> dg.MaterializeResult[None]:
    """The tables of all images, and of the files that were rejected."""
    require_partitions(context)
    stage = store.stage("images")
    log = context.log.info
    try:
        settings = _settings(given_settings(config, stage), read_remembered(stage), inputs, stage)
        sources = _sources(settings, stage.path.parent, log)
        digest = digest_of(CODE_VERSION, settings, sources, sources_state(sources))
        previous = stage.current()
        known = None if previous is None else read_table(previous.folder / "images.arrow")

        def compute(folder: Path) -> dict[str, Any]:
            scan = scan_sources(
                sources,
                previous=known,
                shard_size=settings.shard_size,
                max_pixels=settings.max_pixels,
                evaluation_fraction=settings.evaluation_fraction,
                log=log,
            )
            _check_rejected(scan, settings.max_rejected_share, stage.path / "rejected.arrow")
            return _write(folder, scan, sources, settings)

        version = materialise(stage, digest, settings, compute, log)
    except InputError as error:
        raise dg.Failure(str(error)) from error
    table = read_table(version.folder / "images.arrow")
    summary = {"other_files": 0, **version.summary}  # versions of older releases do not count them
    log(
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


def _settings(
    given: dict[str, Any], remembered: dict[str, Any], inputs: InputPaths, stage: StageFolder
) -> ImagesSettings:
    """Settings whose sources are this run's config's, else the environment's, else the last run's.

    Raises:
        InputError: The sources share no image root with those of the last run.
    """
    named = given.get("sources")
    old_sources = tuple(ImageSource(**source) for source in remembered.pop("sources", ()))
    given["sources"] = old_sources
    if named is not None:
        given["sources"] = tuple(ImageSource(**dict(source)) for source in named)
    elif inputs.images and not given.get("sample"):
        given["sources"] = (
            READERS["coco"](inputs.images, inputs.annotations)
            if inputs.annotations
            else READERS["folder"](inputs.images)
        )
    if named is not None or inputs.images:
        given.setdefault("sample", False)
    _refuse_other_images(old_sources, given["sources"], stage)
    return ImagesSettings(**(remembered | given))


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
        "ops.images.config.sources in the run config"
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


def train_images(store: Store) -> pa.Table:
    """The images of the train split."""
    table = read_images(store.stage("images").require())
    return rows_in(table, "split", ["train"])


def shards_of(table: pa.Table) -> dict[int, pa.Table]:
    """The images table by shard number, ascending."""
    numbers = sorted(set(column_values(table, "shard")))
    return {shard: rows_in(table, "shard", [shard]) for shard in numbers}


def identity_of(table: pa.Table) -> list[list[object]]:
    """Ids and content hashes: what results computed from these images depend on."""
    return [list(row.values()) for row in table.select(["image_id", "sha256"]).to_pylist()]
