"""DINO: the backbone that every stage reads its features from, and its pre-training."""

from segmodels.dino.backbone import Backbone, load_backbone

__all__ = ["Backbone", "load_backbone"]
