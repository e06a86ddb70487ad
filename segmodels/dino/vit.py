"""A vision transformer with DINO's exact semantics (Caron et al. 2021; method 1.2 to 1.4).

Parameter names follow the official DINO checkpoints, so their weights load without renaming.
"""

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class ViTShape:
    """Sizes of a vision transformer; `grid` is the side, in patches, of its position embedding."""

    patch_size: int
    dim: int
    depth: int
    num_heads: int
    grid: int
    hidden_dim: int

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} must be a multiple of num_heads {self.num_heads}")

    @classmethod
    def from_state(cls, state: dict[str, Tensor], num_heads: int | None = None) -> "ViTShape":
        """Read the sizes off the tensors of an official-layout state; heads are 64 wide unless given."""
        dim, _, patch_size, _ = state["patch_embed.proj.weight"].shape
        positions = state["pos_embed"].shape[1] - 1
        grid = isqrt(positions)
        if grid * grid != positions:
            raise ValueError(f"position embedding must be a square grid, got {positions} patches")
        blocks = {int(name.split(".")[1]) for name in state if name.startswith("blocks.")}
        return cls(
            patch_size=patch_size,
            dim=dim,
            depth=len(blocks),
            num_heads=num_heads or max(1, dim // 64),
            grid=grid,
            hidden_dim=state["blocks.0.mlp.fc1.weight"].shape[0],
        )


@dataclass(frozen=True)
class ViTOutput:
    """What one forward pass gives: `keys` and `tokens` (n, t, d) without CLS, `cls` (n, d)."""

    keys: Tensor
    tokens: Tensor
    cls: Tensor


class Attention(nn.Module):
    """Multi-head self-attention with one fused query-key-value projection (with bias)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attended tokens and the keys with their heads concatenated, both (n, t, d)."""
        n, t, d = x.shape
        qkv = self.qkv(x)
        query, key, value = qkv.view(n, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(n, t, d)), qkv[..., d : 2 * d]


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, t, d) to (n, t, d)."""
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block that also hands out its keys."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, hidden_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's tokens and its attention keys, both (n, t, d)."""
        attended, keys = self.attn(self.norm1(x))
        x = x + attended
        return x + self.mlp(self.norm2(x)), keys


class PatchEmbed(nn.Module):
    """Cut an image into square patches and project each to a token."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (n, 3, H, W) to (n, gh * gw, d), rows first."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINO's vision transformer without a classification head."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape.patch_size, shape.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + shape.grid**2, shape.dim))
        self.blocks = nn.ModuleList(
            Block(shape.dim, shape.num_heads, shape.hidden_dim) for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights as DINO does: truncated normal (std 0.02), zero biases."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            else:
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)

    def position_embedding(self, gh: int, gw: int) -> Tensor:
        """Position embedding (1, 1 + gh * gw, d) for a grid of gh x gw patches.

        Other grids than the native one are resampled bicubically by a scale FACTOR of
        (target + 0.1) / native for each axis: the factor, not the target size, sets the sampling
        coordinates, so giving the size would shift every embedding slightly (DINO,
        interpolate_pos_encoding).
        """
        native = self.shape.grid
        if gh == gw == native:
            return self.pos_embed
        table = self.pos_embed[:, 1:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
        factor = ((gh + 0.1) / native, (gw + 0.1) / native)
        table = functional.interpolate(
            table, scale_factor=factor, mode="bicubic", align_corners=False
        )
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> ViTOutput:
        """Run the transformer.

        Args:
            pixels: (n, 3, H, W) normalised; H and W multiples of the patch size.
            kept: (n, t) int64 indices, row-major, of the only patches to look at; None is all.

        Returns:
            Last-block keys (before attention), tokens and CLS after the final norm.
        """
        patch_size = self.shape.patch_size
        height, width = pixels.shape[-2:]
        if height % patch_size or width % patch_size:
            raise ValueError(
                f"height and width must be multiples of the patch size {patch_size}, "
                f"got {height} x {width}"
            )
        positions = self.position_embedding(height // patch_size, width // patch_size)
        x = self.patch_embed(pixels) + positions[:, 1:]
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
        cls = (self.cls_token + positions[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x], dim=1)
        for block in self.blocks:
            x, keys = block(x)
        x = self.norm(x)
        return ViTOutput(keys=keys[:, 1:], tokens=x[:, 1:], cls=x[:, 0])
