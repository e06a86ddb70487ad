"""DINO: the backbone that every stage reads its features from, and its pre-training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmodels.dino.backbone import Backbone, load_backbone

__all__ = ["Backbone", "load_backbone"]


def __getattr__(name: str) -> Any:
    """Import the backbone when it is asked for: settings are read without loading torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segmodels.dino import backbone

    return getattr(backbone, name)
