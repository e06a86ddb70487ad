"""DINO pre-training; `load_backbone` may be imported from here too."""

from segmodels.backbones import __getattr__  # noqa: F401 - Backbone and load_backbone, lazily
