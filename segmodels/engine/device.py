"""The one place that turns "auto" into a device."""

import os


def resolve_device(device: str) -> str:
    """Name the torch device: "auto" is this process's GPU where torch sees one, else "cpu"."""
    if device != "auto":
        return device
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
