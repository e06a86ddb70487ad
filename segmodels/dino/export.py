"""Export a checkpoint as backbone weights: `python -m segmodels.dino.export --help`."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save

from segmodels.backbones.backbone import build_model
from segmodels.formats.atomic import replacing


def export(
    checkpoint: Path, out: Path, *, num_heads: int, image_size: int, tau: float, center_keys: bool
) -> None:
    """Write a checkpoint's teacher as float16 .safetensors with its recommended settings.

    Args:
        checkpoint: file written by `segmodels.dino.pretrain`.
        out: .safetensors file, written atomically.
        num_heads: attention heads of the transformer.
        image_size, tau, center_keys: recommended for MaskCut with these weights.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    prefix = "backbone."
    state = {
        name.removeprefix(prefix): tensor.half().contiguous()
        for name, tensor in content["teacher"].items()
        if name.startswith(prefix)
    }
    metadata = {
        "num_heads": str(num_heads),
        "image_size": str(image_size),
        "tau": str(tau),
        "center_keys": "true" if center_keys else "false",
        "steps": str(content["step"]),
        "settings": content["settings"],
    }
    build_model(state, metadata)
    with replacing(out) as partial:
        partial.write_bytes(save(state, metadata))


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        prog="python -m segmodels.dino.export",
        description="Write the teacher of a pre-training checkpoint as backbone weights.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help=".safetensors file")
    parser.add_argument("--num-heads", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=240, help="side of MaskCut's input")
    parser.add_argument("--tau", type=float, default=0.15, help="MaskCut's affinity threshold")
    parser.add_argument(
        "--center-keys",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="subtract each image's mean key before the cosine",
    )
    given = vars(parser.parse_args())
    export(given.pop("checkpoint"), given.pop("out"), **given)


if __name__ == "__main__":
    main()
