"""Resolve "auto" to a torch device; nothing else in the project does."""

import os


def resolve_device(device: str) -> str:
    """Resolve "auto" to the GPU of this process where torch sees one, else to "cpu"."""
    if device != "auto":
        return device
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"


def uses_gpu(device: str) -> bool:
    """Whether a torch device, "auto" resolved, is a GPU."""
    return resolve_device(device).startswith("cuda")
