"""Settings of training and prediction; what is left out is taken from the configuration file."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

CONFIG_FOLDER = Path(__file__).parent / "configs"


def config_names() -> list[str]:
    """Names of the configurations that ship with the project."""
    return sorted(path.stem for path in CONFIG_FOLDER.glob("*.py"))


def config_path(config: str) -> Path:
    """File of a configuration given by its shipped name or by its own path."""
    return Path(config) if config.endswith(".py") else CONFIG_FOLDER / f"{config}.py"


def config_texts(config: str) -> list[str]:
    """What a configuration may consist of: its own file, and every shipped one as its base."""
    shipped = sorted(CONFIG_FOLDER.rglob("*.py"))
    return [path.read_text(encoding="utf-8") for path in (config_path(config), *shipped)]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a segmenter is trained; None leaves the choice to the configuration.

    Attributes:
        config: ``cpu_r18_half``, ``cpu_r18``, ``paper_r50``, or the path of an mmengine configuration like them.
        iterations: optimiser steps in all.
        batch_size: images a step, over all processes.
        learning_rate: peak learning rate.
        short_sides: short sides of the images in px, one drawn for each sample.
        long_side: largest long side in px.
        seed: of weights, order, augmentation and sampling.
        splits: splits of the images table to train on.
        keep_empty: train on images without instances, too (U2Seg leaves them out).
        drop_loss: leave regions that overlap no pseudo box out of the classification loss.
        drop_threshold: largest IoU at which DropLoss drops a region (CutLER: 0.01).
        class_agnostic_masks: one mask a box instead of one a cluster and box.
        init_checkpoint: weights to start from: a backbone (DINO's ResNet-50) or a segmenter.
        checkpoint_every: iterations between checkpoints.
        keep_checkpoints: how many of them are kept.
        progress_every: iterations between progress reports and scalars.
        workers: loader processes; 0 loads in the training process.
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
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    progress_every: int = 20
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would fail late."""
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
        """These settings as a JSON object."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Settings from a JSON object.

        Raises:
            ValueError: a name is unknown.
        """
        return cls(**_known_fields(cls, json.loads(text)))


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How a segmenter is applied and its instances and stuff are merged.

    Attributes:
        short_side: short side of the network's input in px.
        long_side: largest long side in px.
        score_threshold: lowest score of an instance in the results.
        nms_threshold: box IoU above which the weaker instance of one cluster goes.
        max_detections: most instances an image.
        instance_confidence: lowest score of an instance in the panoptic map.
        overlap: an instance goes when better ones cover more than this share of it.
        stuff_min_area: smallest stuff segment in px ...
        stuff_area_short_side: ... of an image with this short side, scaled for others; None
            takes the number as it is, whatever the image's size (as published).
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
        """Smallest stuff segment of an image of this size, in its own pixels."""
        if self.stuff_area_short_side is None:
            return float(self.stuff_min_area)
        return self.stuff_min_area * (min(height, width) / self.stuff_area_short_side) ** 2


@dataclass(frozen=True, kw_only=True)
class PredictionChoices:
    """Prediction settings as a user gives them; None keeps the training configuration's.

    Attributes:
        short_side: short side of the network's input in px.
        score_threshold: lowest score of an instance in the results.
        max_detections: most instances an image.
        instance_confidence: lowest score of an instance in the panoptic map.
        overlap: an instance goes when better ones cover more than this share of it.
        stuff_min_area: smallest stuff segment in px.
    """

    short_side: int | None = None
    score_threshold: float | None = None
    max_detections: int | None = None
    instance_confidence: float | None = None
    overlap: float | None = None
    stuff_min_area: int | None = None

    def over(self, defaults: PredictionSettings) -> PredictionSettings:
        """The defaults, overridden by what was chosen."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(defaults, **given)


def _known_fields(cls: Any, values: dict[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(cls)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ValueError(f"unknown settings {unknown}; known are {sorted(known)}")
    return {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
