"""STEGO's correspondence loss (STEGO sec. 3.2; U2Seg eq. 2; details from its released code)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

_Samples = tuple[torch.Tensor, torch.Tensor]

Shift = Literal["fixed", "quantile"]
Clamp = Literal["zero", "stabilised"]

STABILISED_CEILING = 0.8
"""Upper clamp of the code correspondence in STEGO's stabilised variant."""


@dataclass(frozen=True)
class Term:
    """One kind of image pair in the loss.

    Attributes:
        weight: factor of this term in the sum.
        shift: b of the loss, used when the shift is "fixed".
        positive_share: share of feature correspondences above b, used when it is "quantile".
    """

    weight: float
    shift: float = 0.0
    positive_share: float = 0.5


@dataclass(frozen=True)
class LossSettings:
    """What the correspondence loss is made of.

    Attributes:
        same: pairs of an image with itself ("intra").
        neighbour: pairs with one of its nearest neighbours ("inter").
        random: pairs with other images of the batch ("neg").
        shift: "fixed" takes b from the terms, as published; "quantile" sets b in each batch so
            that the terms' share of correspondences is positive, which follows a backbone whose
            cosines lie elsewhere than DINO's.
        clamp: "zero" clamps the code correspondence from below at 0; "stabilised" also from
            above at 0.8.
        pointwise: centre each source point's correspondences before the shift.
        points: side of the square of random points that is sampled in each image.
        negatives: random pairings in each step.
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
    """Weighted sum and the three terms, each a scalar tensor."""

    total: torch.Tensor
    same: torch.Tensor
    neighbour: torch.Tensor
    random: torch.Tensor


def sample_points(n: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Random points (n, side, side, 2), xy uniform in [-1, 1], as `grid_sample` reads them."""
    return torch.rand((n, side, side, 2), generator=generator) * 2 - 1


def sample_at(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear values of maps (n, d, h, w) at points (n, p, q, 2): (n, d, p, q)."""
    return functional.grid_sample(maps, points, padding_mode="border", align_corners=True)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scale the vectors of a map (n, d, p, q) to length 1."""
    return functional.normalize(vectors, dim=1)


def correspondence(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cosine of every position of one map with every position of another.

    Args:
        source: (n, d, p, q), unit vectors.
        target: (n, d, r, s), unit vectors.

    Returns:
        (n, p, q, r, s) in [-1, 1].
    """
    return torch.einsum("ndpq,ndrs->npqrs", source, target)


def centre_pointwise(correspondences: torch.Tensor) -> torch.Tensor:
    """Take each source point's mean away, then restore the global mean of (n, p, q, r, s)."""
    centred = correspondences - correspondences.mean(dim=(3, 4), keepdim=True)
    return centred - centred.mean() + correspondences.mean()


def quantile_shift(correspondences: torch.Tensor, positive_share: float) -> torch.Tensor:
    """The value b above which lies `positive_share` of the correspondences.

    Raises:
        ValueError: the share is not in (0, 1).
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
    """Loss of one batch of image pairs: mean of -clamp(code cosine) * (feature cosine - b).

    Args:
        features: unit source and target features (n, d, p, q), sampled; take no gradient.
        codes: unit source and target codes (n, c, p, q) at the same points.
        term: this kind of pair.
        settings: clamp, centring and kind of shift.

    Returns:
        A scalar tensor.
    """
    with torch.no_grad():
        wanted = correspondence(*features)
        if settings.pointwise:
            wanted = centre_pointwise(wanted)
        if settings.shift == "quantile":
            wanted = wanted - quantile_shift(wanted, term.positive_share)
        else:
            wanted = wanted - term.shift
    ceiling = STABILISED_CEILING if settings.clamp == "stabilised" else None
    learned = correspondence(*codes).clamp(min=0.0, max=ceiling)
    return -(learned * wanted).mean()


def other_images(n: int, generator: torch.Generator) -> torch.Tensor:
    """A partner for each of n images: a random permutation whose fixed points move on by one.

    As published, the result need not be a permutation. n must be at least 2.
    """
    partners = torch.randperm(n, generator=generator)
    fixed = partners == torch.arange(n)
    return (partners + fixed.long()) % n


def stego_loss(
    features: tuple[torch.Tensor, torch.Tensor],
    codes: tuple[torch.Tensor, torch.Tensor],
    settings: LossSettings,
    generator: torch.Generator,
) -> LossParts:
    """The three-term loss of one batch.

    Args:
        features: (n, d, h, w) of the images and of one nearest neighbour each; n at least 2.
        codes: (n, c, h, w) of the same.
        settings: terms and kind of loss.
        generator: source of points and pairings (on the CPU, so every device draws the same).
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
