"""Settings of training and prediction; those left out come from the configuration file."""

import ast
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from segmodels.engine.settings import FREE

CONFIG_FOLDER = Path(__file__).parent / "configs"


def config_names() -> list[str]:
    """Names of the shipped configurations."""
    return sorted(path.stem for path in CONFIG_FOLDER.glob("*.py"))


def config_path(config: str) -> Path:
    """File of a configuration, given by its shipped name or its path."""
    return Path(config) if config.endswith(".py") else CONFIG_FOLDER / f"{config}.py"


def config_code(config: str) -> list[str]:
    """A configuration file and its bases as code without comments: what decides a training."""
    path = config_path(config)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bases = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_base_"
    ]
    names = [name for base in bases for name in ([base] if isinstance(base, str) else base)]
    files = [path.parent / name for name in names]
    return [ast.unparse(tree)] + [code for file in files for code in config_code(str(file))]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a segmenter is trained; None takes the configuration's value.

    Attributes:
        config: ``cpu_r18_half``, ``cpu_r18``, ``paper_r50``, or the path of such an mmengine
            configuration file.
        iterations: optimiser steps.
        batch_size: images per step, over all processes.
        learning_rate: peak learning rate.
        short_sides: short sides of the input in px, one drawn per sample.
        long_side: upper bound of the long side in px.
        seed: of initialisation, order, augmentation and sampling.
        splits: splits of the images table to train on.
        keep_empty: also train on images without instances (U2Seg drops them).
        drop_loss: DropLoss: ignore regions that overlap no pseudo box in the classification loss.
        drop_threshold: largest IoU at which DropLoss drops a region (CutLER: 0.01).
        class_agnostic_masks: predict one mask per box instead of one per cluster and box.
        init_checkpoint: initial weights, of a backbone (DINO's ResNet-50) or a segmenter.
        checkpoint_every: iterations between checkpoints.
        keep_checkpoints: number of checkpoints to keep.
        progress_every: iterations between progress reports and scalars.
        workers: data loader processes; 0 loads in the training process.
    """

    config: str = "cpu_r18_half"
    iterations: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    short_sides: tuple[int, ...] | None = None
    long_side: int | None = None
    seed: int = 0
    splits: tuple[str, ...] = ("train",)
    keep_empty: bool = False
    drop_loss: bool = True
    drop_threshold: float = 0.01
    class_agnostic_masks: bool | None = None
    init_checkpoint: str | None = None
    checkpoint_every: int = field(default=1000, metadata=FREE)
    keep_checkpoints: int = field(default=2, metadata=FREE)
    progress_every: int = field(default=20, metadata=FREE)
    workers: int | None = field(default=None, metadata=FREE)

    def __post_init__(self) -> None:
        """Check the values before anything is trained."""
        if not config_path(self.config).is_file():
            raise ValueError(
                f"config must be one of {config_names()} or the path of a configuration file, "
                f"got {self.config!r}"
            )
        for name in ("iterations", "batch_size", "checkpoint_every", "progress_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.drop_threshold < 1:
            raise ValueError(f"drop_threshold must be in [0, 1), got {self.drop_threshold}")

    def to_json(self) -> str:
        """Return the settings as a JSON object."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read settings from a JSON object.

        Raises:
            ValueError: a name is unknown.
        """
        values: dict[str, Any] = json.loads(text)
        known = {field.name for field in fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise ValueError(f"unknown settings {unknown}; known are {sorted(known)}")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**values | lists)


@dataclass(frozen=True, kw_only=True)
class ResolvedPredictionSettings:
    """How a segmenter predicts, and how its instances and stuff are merged.

    Attributes:
        short_side: short side of the input in px.
        long_side: upper bound of the long side in px.
        score_threshold: discard instances with a lower score.
        nms_threshold: box IoU above which NMS discards the lower score of two of one cluster.
        max_detections: most instances per image.
        instance_confidence: score threshold of the panoptic map.
        overlap: overlap threshold of the panoptic map: discard an instance when those of higher
            score cover more than this share of it.
        stuff_min_area: smallest stuff segment in px, for an image of ``stuff_area_short_side``.
        stuff_area_short_side: in px; ``stuff_min_area`` is scaled to the image's size. None does
            not scale it (as published).
    """

    short_side: int
    long_side: int
    score_threshold: float
    nms_threshold: float
    max_detections: int
    instance_confidence: float
    overlap: float
    stuff_min_area: int
    stuff_area_short_side: int | None

    def min_stuff_pixels(self, height: int, width: int) -> float:
        """Smallest stuff segment of an image of this size, px."""
        if self.stuff_area_short_side is None:
            return float(self.stuff_min_area)
        return self.stuff_min_area * (min(height, width) / self.stuff_area_short_side) ** 2


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """See :class:`ResolvedPredictionSettings`; None takes the training configuration's value."""

    short_side: int | None = None
    score_threshold: float | None = None
    max_detections: int | None = None
    instance_confidence: float | None = None
    overlap: float | None = None
    stuff_min_area: int | None = None

    def resolve(self, defaults: Mapping[str, Any]) -> ResolvedPredictionSettings:
        """Override the configuration's values, its ``prediction``, by those that are not None."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return ResolvedPredictionSettings(**{**defaults, **given})
