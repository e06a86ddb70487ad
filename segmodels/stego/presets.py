"""Named settings of STEGO's loss: the published ones and our own."""

from segmodels.backbones.registry import BackboneName
from segmodels.stego.loss import LossSettings, Term


def _published(
    *, weights: tuple[float, float, float], shifts: tuple[float, float, float]
) -> LossSettings:
    """Published settings, in the order of STEGO's configuration: neg, inter, intra."""
    random, neighbour, same = (
        Term(weight, shift) for weight, shift in zip(weights, shifts, strict=True)
    )
    return LossSettings(same=same, neighbour=neighbour, random=random)


_VITS_WEIGHTS = (0.63, 0.25, 0.67)

LOSS_PRESETS: dict[str, LossSettings] = {
    "coco_vits_1_31_22": _published(weights=_VITS_WEIGHTS, shifts=(0.66, 0.02, 0.08)),
    "coco_vits_10_3": _published(weights=_VITS_WEIGHTS, shifts=(0.16, 0.02, 0.08)),
    "coco_vitb_10_3": _published(weights=(0.1538, 1.0, 0.1), shifts=(1.0, 0.20, 0.12)),
    "coco_older": _published(weights=(0.72, 0.80, 0.29), shifts=(0.86, 0.04, 0.34)),
    "cityscapes_vitb_10_3": _published(
        weights=(0.9059, 0.5775, 1.0), shifts=(0.3136, 0.1754, 0.4583)
    ),
    "cityscapes_older": _published(weights=(0.72, 0.18, 0.46), shifts=(0.25, 0.20, 0.25)),
    "potsdam_vits": _published(weights=_VITS_WEIGHTS, shifts=(0.46, 0.02, 0.08)),
    "iaroa_vits": _published(weights=_VITS_WEIGHTS, shifts=(0.46, 0.12, 0.18)),
    # Ours: the weights of the ViT-S rows; b is the quantile of a batch, without labels. The shares
    # are near those that "coco_vits_10_3" leaves positive on embedded_dino's features (0.82,
    # 0.87, 0.36). The 0.2 of random pairs was NOT chosen label-free: of four sets of shares it
    # scored best on 100 annotated COCO train images.
    "quantile": LossSettings(
        same=Term(weight=0.67, positive_share=0.8),
        neighbour=Term(weight=0.25, positive_share=0.8),
        random=Term(weight=0.63, positive_share=0.2),
        shift="quantile",
    ),
}
"""STEGO `src/configs/train_config.yml`, by data set and backbone; "quantile" is ours."""

_BY_BACKBONE = {
    "dino_vits8": "coco_vits_10_3",
    "dino_vits16": "coco_vits_10_3",
    "dino_vitb8": "coco_vitb_10_3",
    "dino_vitb16": "coco_vitb_10_3",
}


def loss_preset(name: str, backbone: str = "") -> LossSettings:
    """Look up loss settings by name.

    Args:
        name: a key of `LOSS_PRESETS`, or "auto": the published COCO row for an official DINO
            backbone, "quantile" for every other one, the embedded included.
        backbone: name of the backbone, with or without `@sha256:` and its hash; for "auto" only.

    Raises:
        ValueError: no preset of that name.
    """
    if name == "auto":
        name = _BY_BACKBONE.get(BackboneName.parse(backbone).name, "quantile")
    if name not in LOSS_PRESETS:
        known = ", ".join(["auto", *LOSS_PRESETS])
        raise ValueError(f"the STEGO loss must be one of {known}; got {name!r}")
    return LOSS_PRESETS[name]
