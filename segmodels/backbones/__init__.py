"""Backbones: networks that features are read from, by name, with their weights."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmodels.backbones.backbone import Backbone, load_backbone

__all__ = ["Backbone", "load_backbone"]


def __getattr__(name: str) -> Any:
    """Import the backbone when it is asked for: settings are read without loading torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segmodels.backbones import backbone

    return getattr(backbone, name)
