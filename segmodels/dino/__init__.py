"""DINO pre-training; `load_backbone` is offered here too, under the name that scripts know."""

from segmodels.backbones import __getattr__  # noqa: F401 - Backbone and load_backbone, lazily
