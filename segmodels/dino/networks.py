"""Student and teacher: a vision transformer with the projection heads of the losses."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.dino.settings import PretrainSettings


class DinoHead(nn.Module):
    """Projection head: MLP, L2-normalised bottleneck and prototypes (DINO app. C)."""

    def __init__(self, dim: int, prototypes: int, *, hidden_dim: int, bottleneck: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.zeros(prototypes, bottleneck))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights with standard deviation fan_in ** -0.5; zero biases."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, d) to cosines with the prototypes (n, prototypes)."""
        unit = functional.normalize(self.mlp(x), dim=-1)
        return functional.linear(unit, functional.normalize(self.prototypes, dim=-1))


class Network(nn.Module):
    """A transformer with DINO heads on CLS and on keys, and a shape head on CLS."""

    def __init__(self, settings: PretrainSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.backbone = VisionTransformer(settings.vit_shape)
        self.cls_head = DinoHead(dim, settings.prototypes, hidden_dim=2 * dim, bottleneck=128)
        self.patch_head = DinoHead(
            dim, settings.patch_prototypes, hidden_dim=2 * dim, bottleneck=64
        )
        self.shape_head = nn.Linear(dim, settings.shape.cells**2)
        self._bfloat16 = settings.bfloat16

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.patch_head.prototypes.device

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass: bfloat16 if the settings say so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights."""
        for part in (self.backbone, self.cls_head, self.patch_head):
            part.initialise(generator)
        nn.init.normal_(self.shape_head.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.shape_head.bias)


def start_from(backbone: VisionTransformer, state: Mapping[str, Tensor]) -> None:
    """Load weights into a transformer, their position embedding resampled to its grid.

    Raises:
        RuntimeError: the weights belong to a transformer of another shape.
        ValueError: their width is no multiple of this transformer's number of heads.
    """
    source = VisionTransformer(ViTShape.from_state(dict(state), backbone.shape.num_heads))
    source.load_state_dict(state)
    grid = backbone.shape.grid
    backbone.load_state_dict({**state, "pos_embed": source.position_embedding(grid, grid)})
