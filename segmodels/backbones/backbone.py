"""The backbone object that all stages read features from, and how it is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.cache import locate_weights
from segmodels.backbones.layouts import has_gated_mlp, is_resnet, official_layout
from segmodels.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD
from segmodels.backbones.registry import DEFAULT_CACHE, names_of, wrong_network
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.backbones.weights import (
    WeightsFormatError,
    load_strictly,
    read_weights,
    weights_digest,
)


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
    """A frozen vision transformer, and what its weights recommend for MaskCut.

    Attributes:
        name: the name or path it was loaded by.
        advice: MaskCut settings that suit its keys; `image_size`, `tau` and `center_keys` are
            shorthands for them.
        digest: SHA-256 of the tensors, see `weights_digest`.
        device: where it runs.
    """

    def __init__(
        self,
        name: str,
        model: VisionTransformer,
        advice: MaskCutAdvice,
        device: str | torch.device = "cpu",
    ) -> None:
        self.name = name
        self.advice = advice
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

    @property
    def image_size(self) -> int:
        """Recommended side of the square input in pixels."""
        return self.advice.image_size

    @property
    def tau(self) -> float:
        """Recommended affinity threshold."""
        return self.advice.tau

    @property
    def center_keys(self) -> bool:
        """Whether to subtract the image's mean key before the cosine."""
        return self.advice.center_keys

    def untrained(self, seed: int) -> "Backbone":
        """Give the same network, advice and device with freshly drawn weights, to compare with."""
        model = VisionTransformer(self._model.shape)
        model.initialise(torch.Generator().manual_seed(seed))
        return Backbone(f"{self.name}, untrained", model, self.advice, self.device)

    def state(self) -> dict[str, Tensor]:
        """The transformer's tensors by their official DINO names."""
        return self._model.state_dict()

    @torch.no_grad()
    def extract(self, batch: Tensor, precision: str = "float32") -> Features:
        """Compute features of normalised pixels.

        Args:
            batch: (n, 3, H, W) float32, see `pixels.normalised_pixels`; H and W multiples of
                the patch size.
            precision: "float32", or "bfloat16" for matrix products in that type.

        Returns:
            Features on the backbone's device, gh = H / patch_size and gw = W / patch_size.

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
        """Attention of CLS to the patches in each head of the last block (DINO fig. 1).

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
    site: str | None = None,
) -> Backbone:
    """Load a vision transformer by name or from a file.

    Args:
        name_or_path: a name of kind "vit" in `registry.REGISTRY` (`embedded`, `dino_vitb8`,
            `dinov2_vitb14_reg`); or the path of a .pth or .safetensors file in the layout of DINO,
            DINOv2, timm or Hugging Face. With `@sha256:<64 hexadecimal digits>` after it, only a
            file with this hash is accepted.
        device: torch device to run on.
        cache_folder: where official weights are kept.
        site: a mirror to fetch official weights from; None is the publisher's.

    Raises:
        WrongNetworkError: the weights are those of a ResNet; `load_resnet` loads them.
        UnknownBackboneError: neither a known name nor an existing file.
        WeightsUnavailableError: official weights are missing and cannot be fetched.
        WeightsMismatchError: the file does not have the hash that was asked for or recorded.
        WeightsFormatError: the file's tensors are not those of a plain vision transformer.

    Examples:
        >>> import torch
        >>> backbone = load_backbone("embedded")
        >>> backbone.patch_size, backbone.image_size
        (8, 240)
        >>> features = backbone.extract(torch.zeros(1, 3, 64, 96))
        >>> features.keys.shape, features.cls.shape
        (torch.Size([1, 8, 12, 192]), torch.Size([1, 192]))
    """
    file = read_weights(locate_weights(name_or_path, cache_folder, kind="vit", site=site))
    if is_resnet(file.state):
        raise wrong_network(name_or_path, "resnet", "vit")
    model = build_model(file.state, file.metadata)
    advice = MaskCutAdvice.from_metadata(file.metadata, model.shape)
    return Backbone(str(name_or_path), model, advice, device)


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
            f"{error}; known backbones are {', '.join(names_of('vit'))}"
        ) from error
    load_strictly(model, state)
    if "image_mean" in metadata or "image_std" in metadata:
        _take_imagenet_pixels(
            model,
            json.loads(metadata.get("image_mean", str(list(IMAGENET_MEAN)))),
            json.loads(metadata.get("image_std", str(list(IMAGENET_STD)))),
        )
    return model


@torch.no_grad()
def _take_imagenet_pixels(model: VisionTransformer, mean: list[float], std: list[float]) -> None:
    """Fold the weights' own normalisation into the first layer, so that ImageNet's fits all."""
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
