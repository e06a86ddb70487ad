"""What pre-training trains: a transformer with the heads of its losses."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.dino.losses import DinoHead
from segmodels.dino.settings import PretrainSettings


class Network(nn.Module):
    """A transformer with DINO's heads on CLS and on keys, and one that reads shapes off CLS."""

    def __init__(self, settings: PretrainSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.backbone = VisionTransformer(settings.vit_shape)
        self.cls_head = DinoHead(dim, settings.prototypes, hidden_dim=2 * dim, bottleneck=128)
        self.patch_head = DinoHead(
            dim, settings.patch_prototypes, hidden_dim=2 * dim, bottleneck=64
        )
        self.shape_head = nn.Linear(dim, settings.shape.cells**2)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.patch_head.prototypes.device

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights."""
        for part in (self.backbone, self.cls_head, self.patch_head):
            part.initialise(generator)
        nn.init.normal_(self.shape_head.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.shape_head.bias)


def start_from(backbone: VisionTransformer, state: Mapping[str, Tensor]) -> None:
    """Begin with other weights, their positions resampled to this transformer's grid.

    Raises:
        RuntimeError: they belong to a transformer of another shape.
        ValueError: their width is no multiple of this transformer's heads.
    """
    source = VisionTransformer(ViTShape.from_state(dict(state), backbone.shape.num_heads))
    source.load_state_dict(state)
    grid = backbone.shape.grid
    backbone.load_state_dict({**state, "pos_embed": source.position_embedding(grid, grid)})


def autocast(settings: PretrainSettings, device: torch.device) -> torch.autocast:
    """The precision that the settings ask for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16)
