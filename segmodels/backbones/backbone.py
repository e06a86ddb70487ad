"""The backbone object that the pipeline's stages use, and the one way to load it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segmodels.backbones.layouts import has_gated_mlp, official_layout
from segmodels.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD
from segmodels.backbones.registry import DEFAULT_CACHE, NAMES, OFFICIAL_SITE, locate_weights
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.backbones.weights import WeightsFormatError, read_weights, weights_digest

# MaskCut's published setting (method 1.2), for weights that say nothing of their own.
PAPER_IMAGE_SIZE = 480
PAPER_TAU = 0.15


@dataclass(frozen=True)
class Features:
    """Dense features of a batch: `keys` and `tokens` (n, gh, gw, d), `cls` (n, d), float32.

    Keys are those of the last block, before attention, heads concatenated, not normalised
    (MaskCut, method 1.3); tokens and CLS are taken after the final LayerNorm.
    """

    keys: Tensor
    tokens: Tensor
    cls: Tensor


class Backbone:
    """A frozen vision transformer with the settings recommended for MaskCut.

    Attributes:
        name: the name or path it was loaded by.
        patch_size: side of a patch in pixels.
        image_size: recommended side of the square input in pixels.
        tau: recommended affinity threshold.
        center_keys: whether to subtract the image's mean key before the cosine.
        digest: SHA-256 of the weights.
    """

    def __init__(
        self,
        name: str,
        model: VisionTransformer,
        *,
        image_size: int,
        tau: float,
        center_keys: bool,
        device: str | torch.device = "cpu",
    ) -> None:
        self.name = name
        self.image_size = image_size
        self.tau = tau
        self.center_keys = center_keys
        self.digest = weights_digest(model.state_dict())
        self.device = torch.device(device)
        self._model = model.requires_grad_(False).eval().to(self.device)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self._model.shape.patch_size

    @property
    def dim(self) -> int:
        """Width of keys, tokens and CLS."""
        return self._model.shape.dim

    def untrained(self, seed: int) -> "Backbone":
        """Give the same network, settings and device with freshly drawn weights, to compare with."""
        model = VisionTransformer(self._model.shape)
        model.initialise(torch.Generator().manual_seed(seed))
        return Backbone(
            f"{self.name}, untrained",
            model,
            image_size=self.image_size,
            tau=self.tau,
            center_keys=self.center_keys,
            device=self.device,
        )

    def state(self) -> dict[str, Tensor]:
        """The transformer's tensors by their official DINO names."""
        return self._model.state_dict()

    @torch.no_grad()
    def extract(self, batch: Tensor, precision: str = "float32") -> Features:
        """Compute features of normalised pixels.

        Args:
            batch: (n, 3, H, W) float32, see `pixels.normalised_pixels`; H and W multiples of
                the patch size.
            precision: "float32", or "bfloat16" for products of matrices in that.

        Returns:
            Features on the backbone's device, grid of H / patch_size x W / patch_size.

        Raises:
            ValueError: wrong shape, dtype or size.
        """
        _require_pixels(batch)
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = self._model(batch.to(self.device))
        grid = (batch.shape[2] // self.patch_size, batch.shape[3] // self.patch_size)
        return Features(
            keys=output.keys.unflatten(1, grid).float().contiguous(),
            tokens=output.tokens.unflatten(1, grid).float().contiguous(),
            cls=output.cls.float(),
        )

    @torch.no_grad()
    def cls_attention(self, batch: Tensor) -> Tensor:
        """What CLS looks at in the last block, head by head.

        Args:
            batch: as for `extract`.

        Returns:
            (n, heads, gh, gw) float32 on the backbone's device, see `VisionTransformer`.

        Raises:
            ValueError: wrong shape, dtype or size.
        """
        _require_pixels(batch)
        return self._model.cls_attention(batch.to(self.device))


def load_backbone(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    *,
    cache_folder: str | Path = DEFAULT_CACHE,
    site: str = OFFICIAL_SITE,
) -> Backbone:
    """Load a backbone by name or from a file.

    Args:
        name_or_path: one of `registry.NAMES` (`embedded`, `dino_vitb8`, `dinov2_vitb14_reg`); or the path of a .pth or .safetensors file in the layout of DINO,
            DINOv2, timm or Hugging Face. `@sha256:<64 hexadecimal digits>` after any of these
            accepts a file with this hash alone.
        device: torch device to run on.
        cache_folder: where official weights are looked for, and kept once fetched.
        site: where official weights are fetched from, for a mirror of the same paths.

    Raises:
        UnknownBackboneError: neither a known name nor an existing file.
        WeightsUnavailableError: official weights are missing and cannot be fetched.
        WeightsMismatchError: the file is not the one that was asked for, or that was recorded.
        WeightsFormatError: the file's tensors are not those of a plain vision transformer.
    """
    file = read_weights(locate_weights(name_or_path, cache_folder, site=site))
    model = build_model(file.state, file.metadata)
    return Backbone(
        str(name_or_path),
        model,
        image_size=_image_size(model.shape, file.metadata),
        tau=float(file.metadata.get("tau", PAPER_TAU)),
        center_keys=file.metadata.get("center_keys", "false") == "true",
        device=device,
    )


def build_model(state: dict[str, Tensor], metadata: Mapping[str, str]) -> VisionTransformer:
    """Build the transformer that a state describes and load it strictly.

    Args:
        state: tensors by name, any known layout.
        metadata: `num_heads` when heads are not 64 wide; `image_mean` and `image_std`, JSON lists
            of three, when pixels were normalised by others than ImageNet's.

    Raises:
        WeightsFormatError: lists the missing and the unexpected names, or the wrong shapes.
    """
    state = {name: tensor.float() for name, tensor in official_layout(state).items()}
    if has_gated_mlp(state):
        raise WeightsFormatError(
            "blocks with SwiGLU (DINOv2's giant) are not supported: use dinov2_vitl14 or smaller"
        )
    num_heads = int(metadata["num_heads"]) if "num_heads" in metadata else None
    try:
        model = VisionTransformer(ViTShape.from_state(state, num_heads))
    except (KeyError, ValueError) as error:
        raise WeightsFormatError(
            f"not a vision transformer in the layout of DINO, DINOv2, timm or Hugging Face: "
            f"{error}; known backbones are {', '.join(NAMES)}"
        ) from error
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise WeightsFormatError(
            f"weights do not fit: missing {missing or 'none'}, unexpected {unexpected or 'none'}"
        )
    wrong = [name for name in expected if expected[name].shape != state[name].shape]
    if wrong:
        raise WeightsFormatError(f"weights do not fit: wrong shape of {wrong}")
    model.load_state_dict(state)
    if "image_mean" in metadata or "image_std" in metadata:
        _take_imagenet_pixels(
            model,
            json.loads(metadata.get("image_mean", str(list(IMAGENET_MEAN)))),
            json.loads(metadata.get("image_std", str(list(IMAGENET_STD)))),
        )
    return model


@torch.no_grad()
def _take_imagenet_pixels(model: VisionTransformer, mean: list[float], std: list[float]) -> None:
    """Change the first layer so that ImageNet's normalisation gives what the weights' own gave.

    Everything before the network then treats all weights alike.
    """
    projection = model.patch_embed.proj
    ours = torch.tensor([IMAGENET_MEAN, IMAGENET_STD])
    theirs = torch.tensor([mean, std])
    shift = ((ours[0] - theirs[0]) / theirs[1])[:, None, None]
    scale = (ours[1] / theirs[1])[:, None, None]
    assert projection.bias is not None
    projection.bias += (projection.weight * shift).sum(dim=(1, 2, 3))
    projection.weight *= scale


def _require_pixels(batch: Tensor) -> None:
    if batch.ndim != 4 or batch.shape[1] != 3 or batch.dtype != torch.float32:
        raise ValueError(
            f"batch must be (n, 3, H, W) float32, got {tuple(batch.shape)} {batch.dtype}"
        )


def _image_size(shape: ViTShape, metadata: Mapping[str, str]) -> int:
    """What the weights recommend, else the paper's size if patches fill it, else the native one.

    DINOv2's patches of 14 pixels do not fill 480: its native 518 (37 x 37 patches) needs no
    resampled positions, is what its training ended with, and is the finer of the two grids near.
    """
    if "image_size" in metadata:
        size = int(metadata["image_size"])
        if size % shape.patch_size:
            raise WeightsFormatError(
                f"the file recommends images of {size} pixels, no multiple of its patch size "
                f"{shape.patch_size}: correct image_size in its metadata"
            )
        return size
    if PAPER_IMAGE_SIZE % shape.patch_size == 0:
        return PAPER_IMAGE_SIZE
    return shape.grid * shape.patch_size
