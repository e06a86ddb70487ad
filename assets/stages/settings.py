"""Stage settings: typed in Dagster's run config, kept as frozen dataclasses below it.

A field is set by the stage's own config (`ops`), or by the dataset's `stages`, which serve every
job. One that is left out keeps the value of the stage's last run in the same dataset, else the
dataclass's default. Re-materialising one stage from the UI therefore repeats the settings that
its neighbours were made with, instead of silently returning to the defaults.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field, ValidationError, create_model

from assets.stages.manifest import DamagedResultError
from assets.stages.store import StageFolder, write_atomically

Settings = TypeVar("Settings")


class StageConfig(dg.Config):
    """Run config of one stage; every field may be left out."""

    def given(self) -> dict[str, Any]:
        """The fields that this run's config names; null too, where Dagster passes it on."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def config_for(settings_class: type, described: Mapping[str, str]) -> type[StageConfig]:
    """The run-config class of a settings dataclass, field by field, all optional.

    Args:
        settings_class: a frozen dataclass.
        described: a sentence for a field, shown in the UI beside its default.
    """
    hints = typing.get_type_hints(settings_class)
    fields: dict[str, Any] = {}
    for field in _configurable(settings_class):
        text = f"{described.get(field.name, '')} Default: {_default_of(field)!r}.".strip()
        fields[field.name] = (
            typing.Optional[_config_type(hints[field.name])],  # noqa: UP045 - built at run time
            Field(default=None, description=text),
        )
    return create_model(
        settings_class.__name__.replace("Settings", "Config"), __base__=StageConfig, **fields
    )


def _configurable(settings_class: type) -> list["dataclasses.Field[Any]"]:
    """The fields a user may set; nested dataclasses are constants of the method, set in code."""
    hints = typing.get_type_hints(settings_class)
    fields = dataclasses.fields(settings_class)
    return [field for field in fields if not dataclasses.is_dataclass(hints[field.name])]


def _default_of(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _config_type(hint: Any) -> Any:
    """The type by which Dagster's run config can express a settings field."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return type(typing.get_args(hint)[0])
    if origin is tuple:
        return list[_config_type(typing.get_args(hint)[0])]  # type: ignore[misc]
    if dataclasses.is_dataclass(hint):
        return _nested_config(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        return _config_type(inner)
    return hint


def _nested_config(record: Any) -> type[dg.Config]:
    """The config of one record in a list: its dataclass field by field, with its defaults."""
    hints = typing.get_type_hints(record)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is MISSING else field.default)
        for field in dataclasses.fields(record)
    }
    return create_model(f"{record.__name__}Config", __base__=dg.Config, **fields)


def resolve_settings(
    given: Mapping[str, Any], settings_class: type[Settings], stage: StageFolder
) -> Settings:
    """Merge defaults, what the dataset remembers of this stage, and what the run gives.

    Raises:
        dg.Failure: a value has no meaning for the stage; the message is the settings' own.
    """
    remembered = read_remembered(stage)
    known = {field.name for field in _configurable(settings_class)}
    merged = {name: value for name, value in remembered.items() if name in known}
    merged |= given
    hints = typing.get_type_hints(settings_class)
    values = {name: _from_config(hints[name], value) for name, value in merged.items()}
    for name, value in values.items():
        _require_choice(stage.name, name, hints[name], value)
    try:
        return settings_class(**values)
    except (TypeError, ValueError) as error:
        raise dg.Failure(f"config of {stage.name}: {error}") from error


def given_settings(config: StageConfig, stage: StageFolder) -> dict[str, Any]:
    """The fields that a run names: under the dataset's `stages`, or in the stage's own config.

    Raises:
        dg.Failure: `stages` names a field that the stage does not have, or a value of wrong type.
    """
    place = f"resources.dataset.config.stages.{stage.name}"
    known = type(config).model_fields
    for name in stage.given:
        if name not in known:
            raise dg.Failure(f"{place}.{name}: {stage.name} has {', '.join(known)}")
    try:
        named = type(config)(**stage.given)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, (place, *fault["loc"])))
        raise dg.Failure(f"{where}: {fault['msg']}, got {fault['input']!r}") from error
    return named.given() | config.given()


def _from_config(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is not tuple or value is None:
        return value
    record, *_ = typing.get_args(hint)
    if dataclasses.is_dataclass(record):
        return tuple(typing.cast("Any", record)(**dict(one)) for one in value)
    return tuple(value)


def _require_choice(stage: str, name: str, hint: Any, value: object) -> None:
    if value is None and type(None) not in typing.get_args(hint):
        raise dg.Failure(f"config of {stage}: {name} must not be null")
    if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
        choices = ", ".join(map(repr, typing.get_args(hint)))
        raise dg.Failure(f"config of {stage}: {name} must be one of {choices}, got {value!r}")


def read_remembered(stage: StageFolder) -> dict[str, Any]:
    """Settings that this dataset's last run of the stage was given, {} before the first.

    Raises:
        DamagedResultError: their file cannot be read.
    """
    path = _memory_file(stage)
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except ValueError as error:
        raise DamagedResultError(
            f"{path} is damaged: delete it, and name the settings of {stage.name} anew where they "
            "are not the defaults"
        ) from error


def remember(stage: StageFolder, settings: object) -> dict[str, Any]:
    """Keep a stage's settings for its next run in this dataset; returns them as a dict."""
    record = settings_dict(settings)
    write_atomically(_memory_file(stage), json.dumps(record, indent=1, sort_keys=True))
    return record


def settings_dict(settings: object) -> dict[str, Any]:
    """A settings dataclass as JSON-able values."""
    record: Mapping[str, Any] = dataclasses.asdict(typing.cast("Any", settings))
    return dict(json.loads(json.dumps(record)))


def _memory_file(stage: StageFolder) -> Path:
    folder = stage.path if stage.path.name == stage.name else stage.path.parent
    return folder.parent / "settings" / f"{stage.name}.json"
