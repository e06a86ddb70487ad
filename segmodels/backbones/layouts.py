"""Checkpoint key layouts: DINO, DINOv2, timm and Hugging Face, all renamed to the official one."""

import re

from torch import Tensor, cat, zeros_like

# Wrappers that training code puts around a backbone's names.
_PREFIX = re.compile(r"^(module\.|backbone\.|vit\.|model\.|dinov2\.|dinov2_with_registers\.)+")
# Dropped: classification and projection heads, and the mask token of DINOv2's training.
_UNUSED = re.compile(
    r"^(head|fc|classifier|pooler|dino_head|ibot_head)\.|^(embeddings\.)?mask_token$"
)
# DINOv2's training code keeps blocks in chunks: blocks.<chunk>.<block>.
_CHUNK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")
# Gated MLPs: DINOv2, Hugging Face before and since transformers 5.
_GATED = re.compile(r"\.mlp\.(w12|weights_in|gate_proj)\.")

# Hugging Face names of ViT and DINOv2, before and since transformers 5.
_HUGGING_FACE = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^embeddings\.(cls_token|register_tokens)$", r"\1"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^layernorm\.", "norm."),
        (r"^(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
        (r"\.attention\.(?:attention\.query|q_proj)\.", ".attn.query."),
        (r"\.attention\.(?:attention\.key|k_proj)\.", ".attn.key."),
        (r"\.attention\.(?:attention\.value|v_proj)\.", ".attn.value."),
        (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    )
)


def official_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ViT state of any known layout to the official DINO and DINOv2 names.

    Args:
        state: tensors by name; wrapper prefixes such as `module.backbone.` are removed, heads and
            the mask token dropped.

    Returns:
        Tensors by official name. Unknown names are kept, for the loader to list; so are those of
        a ResNet.
    """
    bare = {_PREFIX.sub("", name): tensor for name, tensor in state.items()}
    bare = {_CHUNK.sub("blocks.", name): bare[name] for name in bare if not _UNUSED.match(name)}
    if "reg_token" in bare and "pos_embed" in bare:
        return _unfold_timm_registers(bare)
    if not any(name.startswith("embeddings.") for name in bare):
        return bare
    return _fuse_query_key_value({_rename(name): tensor for name, tensor in bare.items()})


def is_resnet(state: dict[str, Tensor]) -> bool:
    """Whether a state has torchvision's names of a ResNet."""
    return any(name.endswith("layer1.0.conv1.weight") for name in state)


def has_gated_mlp(state: dict[str, Tensor]) -> bool:
    """Whether blocks have SwiGLU instead of an MLP, as DINOv2's giant does.

    Args:
        state: as `official_layout` returns it.
    """
    if any(_GATED.search(name) for name in state):
        return True
    # timm has an MLP's names, with gate and value in the rows of the first layer.
    first, second = (state.get(f"blocks.0.mlp.{layer}.weight") for layer in ("fc1", "fc2"))
    return first is not None and second is not None and len(first) == 2 * second.shape[1]


def _rename(name: str) -> str:
    for pattern, replacement in _HUGGING_FACE:
        name = pattern.sub(replacement, name)
    return name


def _unfold_timm_registers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Restore the position of CLS as zero: timm has added it to the token."""
    unfolded = dict(state)
    unfolded["register_tokens"] = unfolded.pop("reg_token")
    positions = state["pos_embed"]
    unfolded["pos_embed"] = cat([zeros_like(positions[:, :1]), positions], dim=1)
    return unfolded


def _fuse_query_key_value(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join separate query, key and value projections into one `qkv`, in this order."""
    fused = dict(state)
    for name in state:
        parts = [
            name.replace(".attn.query.", f".attn.{part}.") for part in ("query", "key", "value")
        ]
        if ".attn.query." in name and all(part in state for part in parts):
            joined = cat([fused.pop(part) for part in parts])
            fused[name.replace(".attn.query.", ".attn.qkv.")] = joined
    return fused
