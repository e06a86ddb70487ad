"""Stage images: read every source, decode every file once, say what was turned away and why."""

import json
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
from assets.stages.store import Store, Version, digest_of, write_atomically
from segmodels.datasets.sources import (
    ImageSource,
    InputError,
    fingerprint_sources,
    scan_sources,
    sources_from_paths,
)
from segmodels.formats.arrow import column_values, read_table, rows_in, write_table

if TYPE_CHECKING:
    from segmodels.datasets.ground_truth import GroundTruth

CODE_VERSION = "1"


class SourceConfig(dg.Config):
    """One place that images come from."""

    images: str = Field(description="A folder of any depth, a .tar, or a folder of .tar files.")
    instances_json: str | None = None
    panoptic_json: str | None = None
    panoptic_folder: str | None = None
    split: str = Field(default="train", description="train, or val: scored, never trained on.")


class ImagesConfig(StageConfig):
    """Where images come from; without sources, EXNIHILO_IMAGES and EXNIHILO_ANNOTATIONS say."""

    sample: bool | None = Field(
        default=None, description="Compose the embedded sample instead of reading photographs."
    )
    sample_train: int | None = Field(
        default=None, description="Scenes of the sample to learn from. Default: 72."
    )
    sample_val: int | None = Field(
        default=None, description="Scenes of the sample to score. Default: 28."
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
        default=None, description="Ground-truth stuff: none, or coco15 (U2Seg's 15 groups)."
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
    """The table of all images that can be read, and of those that cannot."""
    require_partitions(context)
    stage = store.stage("images")
    log = context.log.info
    try:
        settings = _settings(given_settings(config, stage), read_remembered(stage), inputs)
        sources = _sources(settings, stage.path.parent, log)
        digest = digest_of(CODE_VERSION, settings, sources, fingerprint_sources(sources))
        previous = stage.current()
        known = None if previous is None else read_table(previous.folder / "images.arrow")

        def compute(folder: Path) -> dict[str, Any]:
            return _scan(folder, sources, settings, known, log)

        version = materialise(stage, digest, settings, compute, log)
    except InputError as error:
        raise dg.Failure(str(error)) from error
    table = read_table(version.folder / "images.arrow")
    rejected = read_table(version.folder / "rejected.arrow")
    return result(
        version,
        {
            **table_metadata(table),
            "rejected_images": rejected.num_rows,
            "rejected_by_reason": dg.MetadataValue.json(version.summary["rejected_by_reason"]),
            "train": version.summary["train"],
            "val": version.summary["val"],
            "preview": image_sheet(table),
        },
    )


def _settings(
    given: dict[str, Any], remembered: dict[str, Any], inputs: InputPaths
) -> ImagesSettings:
    """Where images come from: this run's config, else the environment, else the last run."""
    named = given.get("sources")
    old_sources = [ImageSource(**source) for source in remembered.pop("sources", ())]
    if named is not None:
        given["sources"] = tuple(ImageSource(**dict(source)) for source in named)
    elif inputs.images and not given.get("sample"):
        given["sources"] = tuple(sources_from_paths(inputs.images, inputs.annotations))
    else:
        given["sources"] = tuple(old_sources)
    if named is not None or inputs.images:
        given.setdefault("sample", False)
    return ImagesSettings(**(remembered | given))


def _sources(settings: ImagesSettings, root: Path, log: Any) -> tuple[ImageSource, ...]:
    if settings.sample:
        from segmodels.datasets.sample.dataset import RECIPE, sample_sources, write_sample

        train, val = settings.sample_train, settings.sample_val
        folder = root / f"sample_scenes-{RECIPE}-{train}-{val}"
        if not folder.exists():
            log(f"composing the embedded sample in {folder}")
        write_sample(folder, train=train, val=val, on_progress=log)
        return tuple(sample_sources(folder))
    if settings.sources:
        return settings.sources
    raise InputError(
        "no images were named: set EXNIHILO_IMAGES to a folder (make run IMAGES=...), or "
        "ops.images.config.sources in the run config"
    )


def _scan(
    folder: Path,
    sources: tuple[ImageSource, ...],
    settings: ImagesSettings,
    known: pa.Table | None,
    log: Any,
) -> dict[str, Any]:
    scan = scan_sources(
        sources,
        previous=known,
        shard_size=settings.shard_size,
        max_pixels=settings.max_pixels,
        evaluation_fraction=settings.evaluation_fraction,
        on_progress=log,
    )
    seen = scan.images.num_rows + scan.rejected.num_rows
    reasons: dict[str, int] = {}
    for reason in column_values(scan.rejected, "reason"):
        reasons[reason] = reasons.get(reason, 0) + 1
    if scan.rejected.num_rows > settings.max_rejected_share * seen:
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        example = scan.rejected.slice(0, 1).to_pylist()[0]
        raise InputError(
            f"{scan.rejected.num_rows} of {seen} images were rejected ({listed}; for example "
            f"{example['path']!r}), more than max_rejected_share={settings.max_rejected_share:g} "
            f"allows: mend the files or raise that setting"
        )
    write_table(scan.images, folder / "images.arrow")
    write_table(scan.rejected, folder / "rejected.arrow")
    record = {
        "sources": [asdict(source) for source in sources],
        "stuff_grouping": settings.stuff_grouping,
        "merge_stuff_segments": settings.merge_stuff_segments,
    }
    write_atomically(folder / "dataset.json", json.dumps(record, indent=1, sort_keys=True))
    splits = column_values(scan.images, "split")
    return {
        "images": scan.images.num_rows,
        "rejected": scan.rejected.num_rows,
        "rejected_by_reason": reasons,
        "train": splits.count("train"),
        "val": splits.count("val"),
    }


@dataclass(frozen=True)
class DatasetSources:
    """The sources of a dataset, and how its ground truth is read."""

    sources: tuple[ImageSource, ...]
    stuff_grouping: str
    merge_stuff_segments: bool

    def ground_truth(self, table: pa.Table) -> "GroundTruth | None":
        """Ground truth of these images, None where none of them has any."""
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
    """The images that may be learned from: all but those of the val split."""
    table = read_images(store.stage("images").require())
    return rows_in(table, "split", ["train"])


def shards_of(table: pa.Table) -> dict[int, pa.Table]:
    """The images table cut by shard number, in order."""
    numbers = sorted(set(column_values(table, "shard")))
    return {shard: rows_in(table, "shard", [shard]) for shard in numbers}


def identity_of(table: pa.Table) -> list[list[object]]:
    """What a result that is computed from these images depends on: ids and contents."""
    return [list(row.values()) for row in table.select(["image_id", "sha256"]).to_pylist()]
