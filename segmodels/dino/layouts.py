"""Checkpoint key layouts: official DINO, timm and Hugging Face, all brought to the official one."""

import re

from torch import Tensor, cat

# Wrappers that training code puts around a backbone's names.
_PREFIX = re.compile(r"^(module\.|backbone\.|vit\.|model\.)+")
# Parts of other libraries' models that a backbone without classification head has no use for.
_HEADS = re.compile(r"^(head|fc|classifier|pooler)\.")

# Hugging Face ViT names, before and since transformers 5.
_HUGGING_FACE = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^embeddings\.cls_token$", "cls_token"),
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
    )
)


def official_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ViT state of any known layout to the official DINO names.

    Args:
        state: tensors by name, in the layout of DINO, timm or Hugging Face; wrapper prefixes such
            as `module.backbone.` are removed and classification heads dropped.

    Returns:
        Tensors by official name. Names of no known layout are kept, for the loader to list.
    """
    bare = {_PREFIX.sub("", name): tensor for name, tensor in state.items()}
    bare = {name: tensor for name, tensor in bare.items() if not _HEADS.match(name)}
    if not any(name.startswith("embeddings.") for name in bare):
        return bare
    return _fuse_query_key_value({_rename(name): tensor for name, tensor in bare.items()})


def _rename(name: str) -> str:
    for pattern, replacement in _HUGGING_FACE:
        name = pattern.sub(replacement, name)
    return name


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
