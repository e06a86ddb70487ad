"""Backbones: pretrained networks that features are read from, by name, with their weights."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmodels.backbones.backbone import Backbone, load_backbone
    from segmodels.backbones.resnet import ResNet, load_resnet

__all__ = ["Backbone", "ResNet", "load_backbone", "load_resnet"]
_MODULES = {"Backbone": "backbone", "load_backbone": "backbone"}


def __getattr__(name: str) -> Any:
    """Import a network only when it is used, so that settings are read without loading torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'resnet')}"), name)
