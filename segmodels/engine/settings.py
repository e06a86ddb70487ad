"""Which settings decide a result: the others may change while a training is under way."""

from dataclasses import asdict, fields
from typing import Any

FREE = {"free": True}
"""Metadata of a dataclass field that does not decide the result: `field(default=2, metadata=FREE)`."""


def deciding_settings(settings: Any) -> dict[str, Any]:
    """The fields of a settings dataclass that decide the result, by name."""
    free = {field.name for field in fields(settings) if field.metadata.get("free")}
    return {name: value for name, value in asdict(settings).items() if name not in free}
