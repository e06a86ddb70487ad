"""STEGO's correspondence loss (STEGO sec. 3.2; U2Seg eq. 2; details from its released code)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

_Samples = tuple[torch.Tensor, torch.Tensor]

Shift = Literal["fixed", "quantile"]
Clamp = Literal["zero", "stabilised"]

STABILISED_CEILING = 0.8
"""Upper clamp of the code correspondence in STEGO's stabilised variant (`stabalize`)."""


@dataclass(frozen=True)
class Term:
    """Weight and shift of one kind of image pair.

    Attributes:
        weight: lambda of this term (STEGO eq. 5).
        shift: b of this term, used by the "fixed" shift.
        positive_share: share of feature correspondences above b, used by the "quantile" shift.
    """

    weight: float
    shift: float = 0.0
    positive_share: float = 0.5


@dataclass(frozen=True)
class LossSettings:
    """Settings of the correspondence loss.

    Attributes:
        same: pairs of an image with itself (STEGO's "self", in its code "intra").
        neighbour: pairs with a kNN positive ("knn", "inter").
        random: pairs with other images of the batch ("rand", "neg").
        shift: "fixed" takes b from the terms, as published; "quantile" sets b in each batch so
            that `positive_share` of the correspondences are positive, for backbones whose cosines
            are distributed differently from DINO's.
        clamp: "zero" clamps the code correspondence at 0 from below; "stabilised" also at 0.8
            from above.
        pointwise: spatial centring of the feature correspondence before the shift (STEGO eq. 3).
        points: side of the square of random points that are sampled in each image.
        negatives: random pairings of a step.
    """

    same: Term
    neighbour: Term
    random: Term
    shift: Shift = "fixed"
    clamp: Clamp = "zero"
    pointwise: bool = True
    points: int = 11
    negatives: int = 5


@dataclass(frozen=True)
class LossParts:
    """Weighted sum and the unweighted terms, each a scalar tensor."""

    total: torch.Tensor
    same: torch.Tensor
    neighbour: torch.Tensor
    random: torch.Tensor


def sample_points(n: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Random points (n, side, side, 2), xy uniform in [-1, 1], for `grid_sample`."""
    return torch.rand((n, side, side, 2), generator=generator) * 2 - 1


def sample_at(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear samples of maps (n, d, h, w) at points (n, p, q, 2): (n, d, p, q)."""
    return functional.grid_sample(maps, points, padding_mode="border", align_corners=True)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """L2-normalise the vectors of a map (n, d, p, q)."""
    return functional.normalize(vectors, dim=1)


def correspondence(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Correspondence: cosine of every position of one map with every position of another.

    Args:
        source: (n, d, p, q), unit vectors.
        target: (n, d, r, s), unit vectors.

    Returns:
        (n, p, q, r, s) in [-1, 1].
    """
    return torch.einsum("ndpq,ndrs->npqrs", source, target)


def centre_pointwise(correspondences: torch.Tensor) -> torch.Tensor:
    """Subtract each source point's mean from (n, p, q, r, s), then restore the global mean."""
    centred = correspondences - correspondences.mean(dim=(3, 4), keepdim=True)
    return centred - centred.mean() + correspondences.mean()


def quantile_shift(correspondences: torch.Tensor, positive_share: float) -> torch.Tensor:
    """Shift b above which `positive_share` of the correspondences lie.

    Raises:
        ValueError: `positive_share` is not in (0, 1).
    """
    if not 0 < positive_share < 1:
        raise ValueError(f"positive_share must be in (0, 1), got {positive_share}")
    values = correspondences.flatten()
    rank = values.numel() - int(positive_share * values.numel())
    return values.kthvalue(max(1, rank)).values


def pair_loss(
    features: tuple[torch.Tensor, torch.Tensor],
    codes: tuple[torch.Tensor, torch.Tensor],
    term: Term,
    settings: LossSettings,
) -> torch.Tensor:
    """Correspondence loss of one batch of image pairs: mean of -clamp(S) * (F - b) (STEGO eq. 4).

    Args:
        features: sampled unit features of source and target (n, d, p, q); they get no gradient.
        codes: unit codes of source and target (n, c, p, q) at the same points.
        term: shift of this kind of pair.
        settings: clamp, centring and kind of shift.

    Returns:
        A scalar tensor.
    """
    with torch.no_grad():
        feature = correspondence(*features)
        if settings.pointwise:
            feature = centre_pointwise(feature)
        if settings.shift == "quantile":
            feature = feature - quantile_shift(feature, term.positive_share)
        else:
            feature = feature - term.shift
    ceiling = STABILISED_CEILING if settings.clamp == "stabilised" else None
    code = correspondence(*codes).clamp(min=0.0, max=ceiling)
    return -(code * feature).mean()


def other_images(n: int, generator: torch.Generator) -> torch.Tensor:
    """Another image for each of n >= 2: a random permutation whose fixed points move on by one.

    As published, the result need not be a permutation.
    """
    others = torch.randperm(n, generator=generator)
    fixed = others == torch.arange(n)
    return (others + fixed.long()) % n


def stego_loss(
    features: tuple[torch.Tensor, torch.Tensor],
    codes: tuple[torch.Tensor, torch.Tensor],
    settings: LossSettings,
    generator: torch.Generator,
) -> LossParts:
    """The three-term loss of one batch (STEGO eq. 5).

    Args:
        features: (n, d, h, w) of the images and of their kNN positives; n at least 2.
        codes: (n, c, h, w) of the same.
        settings: terms and kind of loss.
        generator: source of points and pairings, on the CPU so that all devices draw the same.
    """
    n, device = len(features[0]), features[0].device
    source_points = sample_points(n, settings.points, generator).to(device)
    target_points = sample_points(n, settings.points, generator).to(device)

    def sampled(which: int, points: torch.Tensor, images: Any = slice(None)) -> _Samples:
        return unit(sample_at(features[which][images], points)), unit(
            sample_at(codes[which][images], points)
        )

    def against(target: _Samples, term: Term) -> torch.Tensor:
        return pair_loss((source[0], target[0]), (source[1], target[1]), term, settings)

    source = sampled(0, source_points)
    same = against(source, settings.same)
    neighbour = against(sampled(1, target_points), settings.neighbour)
    negatives = [
        against(sampled(0, target_points, other_images(n, generator).to(device)), settings.random)
        for _ in range(settings.negatives)
    ]
    random = torch.stack(negatives).mean()
    total = (
        settings.same.weight * same
        + settings.neighbour.weight * neighbour
        + settings.random.weight * random
    )
    return LossParts(total, same, neighbour, random)
