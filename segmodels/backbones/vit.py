"""A vision transformer with DINO's exact semantics (Caron et al. 2021), and DINOv2's where its
weights have LayerScale or registers (Oquab et al. 2023; Darcet et al. 2023).

Parameter names follow the official checkpoints, so their weights load without renaming.
"""

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class ViTShape:
    """Sizes of a vision transformer.

    Attributes:
        patch_size: side of a patch in pixels.
        dim: width of a token.
        depth: number of blocks.
        num_heads: attention heads of a block.
        grid: side, in patches, of the position embedding as stored.
        hidden_dim: width of the hidden layer of a block's MLP.
        registers: number of register tokens, which no output contains (DINOv2 with registers).
        layer_scale: whether each residual branch has LayerScale (DINOv2).
    """

    patch_size: int
    dim: int
    depth: int
    num_heads: int
    grid: int
    hidden_dim: int
    registers: int = 0
    layer_scale: bool = False

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
            registers=state["register_tokens"].shape[1] if "register_tokens" in state else 0,
            layer_scale="blocks.0.ls1.gamma" in state,
        )


@dataclass(frozen=True)
class ViTOutput:
    """Result of a forward pass: `keys` and `tokens` (n, t, d) of patches, `cls` (n, d)."""

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
        d = x.shape[-1]
        qkv = self.qkv(x)
        mixed = functional.scaled_dot_product_attention(*self._heads(qkv))
        return self.proj(mixed.transpose(1, 2).flatten(2)), qkv[..., d : 2 * d]

    def of_cls(self, x: Tensor) -> Tensor:
        """Attention of the first token, CLS, to all tokens: (n, heads, t), summing to 1 over t."""
        query, key, _ = self._heads(self.qkv(x))
        scores: Tensor = (query[:, :, :1] * key.shape[-1] ** -0.5) @ key.transpose(2, 3)
        return scores[:, :, 0].float().softmax(dim=-1)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (n, heads, t, d / heads)."""
        n, t, _ = qkv.shape
        query, key, value = qkv.view(n, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return query, key, value


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, t, d) to (n, t, d)."""
        output: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return output


class LayerScale(nn.Module):
    """Learned per-channel scale of a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last axis."""
        return x * self.gamma


class Block(nn.Module):
    """A pre-norm transformer block that also returns its keys."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        dim = shape.dim
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, shape.num_heads)
        self.ls1 = LayerScale(dim) if shape.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, shape.hidden_dim)
        self.ls2 = LayerScale(dim) if shape.layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's tokens and its attention keys, both (n, t, d)."""
        attended, keys = self.attn(self.norm1(x))
        x = x + self.ls1(attended)
        return x + self.ls2(self.mlp(self.norm2(x))), keys


class PatchEmbed(nn.Module):
    """Cut an image into square patches and project each to a token."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (n, 3, H, W) to (n, gh * gw, d), rows first."""
        patches: Tensor = self.proj(pixels)
        return patches.flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINO's or DINOv2's vision transformer without a classification head."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape.patch_size, shape.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + shape.grid**2, shape.dim))
        registers = torch.zeros(1, shape.registers, shape.dim)
        self.register_tokens = nn.Parameter(registers) if shape.registers else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights as DINO does: truncated normal (std 0.02), zero biases, unit scales."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name or name.endswith("gamma"):
                nn.init.ones_(parameter)
            else:
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)

    def position_embedding(self, gh: int, gw: int) -> Tensor:
        """Position embedding (1, 1 + gh * gw, d) for a grid of gh x gw patches.

        Other grids than the native one are resampled bicubically. DINO, and DINOv2 without
        registers, give a scale FACTOR of (target + 0.1) / native for each axis: the factor, not
        the target size, sets the sampling coordinates, so giving the size would shift every
        embedding slightly. DINOv2 with registers gives the size, and filters against aliasing
        (interpolate_pos_encoding in both; the offset and filter of the hub's models).
        """
        native = self.shape.grid
        if gh == gw == native:
            return self.pos_embed
        table = self.pos_embed[:, 1:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
        if self.shape.registers:
            table = functional.interpolate(table, size=(gh, gw), mode="bicubic", antialias=True)
        else:
            factor = ((gh + 0.1) / native, (gw + 0.1) / native)
            table = functional.interpolate(table, scale_factor=factor, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> ViTOutput:
        """Run the transformer.

        Args:
            pixels: (n, 3, H, W) normalised; H and W multiples of the patch size.
            kept: (n, t) int64 row-major indices of the patches to process; None is all.

        Returns:
            Last-block keys (before attention), tokens and CLS after the final norm.
        """
        x = self._embedded(pixels, kept)
        for block in self.blocks:
            x, keys = block(x)
        x = self.norm(x)
        patches = slice(1 + self.shape.registers, None)
        return ViTOutput(keys=keys[:, patches], tokens=x[:, patches], cls=x[:, 0])

    def cls_attention(self, pixels: Tensor) -> Tensor:
        """Attention of CLS to the patches in the last block (DINO fig. 1).

        Args:
            pixels: (n, 3, H, W) normalised; H and W multiples of the patch size.

        Returns:
            (n, heads, gh, gw); a head sums to 1 less the attention to CLS itself and registers.
        """
        x = self._embedded(pixels)
        for block in self.blocks[:-1]:
            x, _ = block(x)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        attention = last.attn.of_cls(last.norm1(x))[..., 1 + self.shape.registers :]
        gw = pixels.shape[3] // self.shape.patch_size
        return attention.reshape(*attention.shape[:2], -1, gw)

    def _embedded(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """Tokens before the first block: CLS, registers, patches; (n, t, d)."""
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
        first = self.cls_token + positions[:, :1]
        if self.register_tokens is not None:
            first = torch.cat([first, self.register_tokens], dim=1)
        return torch.cat([first.expand(len(x), -1, -1), x], dim=1)
