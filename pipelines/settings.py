"""The only reader of environment variables."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from assets.stages.shards import Engine

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """What a user sets outside the run config.

    Attributes:
        store: folder of all results (EXNIHILO_STORE, default `store/` in the project).
        dataset: name of the dataset where the run config names none (EXNIHILO_DATASET, default
            the name of the image folder, else "sample").
        images: folder, tar or folder of tars (EXNIHILO_IMAGES), "" when unset.
        annotations: COCO json, or the instance and the panoptic one joined by ":"
            (EXNIHILO_ANNOTATIONS).
        backbone_cache: folder of downloaded weights (EXNIHILO_CACHE).
        engine: how shards are computed (EXNIHILO_ENGINE): serial or processes.
        recluster_counts: counts that the nightly schedule goes through (EXNIHILO_COUNTS).
        dagster_home: Dagster's instance folder (DAGSTER_HOME), "" when unset.
    """

    store: Path
    dataset: str
    images: str
    annotations: str
    backbone_cache: Path
    engine: Engine
    recluster_counts: tuple[int, ...]
    dagster_home: str


def read_settings() -> Settings:
    """Settings from the environment, with the defaults of a fresh clone.

    Raises:
        ValueError: EXNIHILO_COUNTS is not a list of whole numbers, or EXNIHILO_ENGINE no engine.
    """
    counts = os.environ.get("EXNIHILO_COUNTS", "300,800,2911")
    try:
        recluster_counts = tuple(int(count) for count in counts.split(",") if count.strip())
    except ValueError:
        raise ValueError(
            f"EXNIHILO_COUNTS must be whole numbers joined by commas, got {counts!r}"
        ) from None
    engine = os.environ.get("EXNIHILO_ENGINE") or "processes"
    if engine not in get_args(Engine):
        raise ValueError(f"EXNIHILO_ENGINE must be serial or processes, got {engine!r}")
    images = _absolute(os.environ.get("EXNIHILO_IMAGES", ""))
    return Settings(
        store=Path(os.environ.get("EXNIHILO_STORE") or ROOT / "store").expanduser().resolve(),
        dataset=os.environ.get("EXNIHILO_DATASET")
        or (Path(images.split(os.pathsep)[0]).stem if images else "sample"),
        images=images,
        annotations=_absolute(os.environ.get("EXNIHILO_ANNOTATIONS", "")),
        backbone_cache=Path(os.environ.get("EXNIHILO_CACHE") or Path.home() / ".cache/exnihilo"),
        engine=cast("Engine", engine),
        recluster_counts=recluster_counts,
        dagster_home=os.environ.get("DAGSTER_HOME", ""),
    )


def _absolute(paths: str) -> str:
    """Paths joined by ":", each made absolute; `~` is the home folder."""
    parts = [part for part in paths.split(os.pathsep) if part]
    return os.pathsep.join(str(Path(part).expanduser().resolve()) for part in parts)
