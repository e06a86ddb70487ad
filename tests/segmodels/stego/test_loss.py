"""STEGO's correspondence loss against explicit loops and hand-worked numbers."""

import math

import numpy as np
import pytest
import torch

from segmodels.stego.loss import (
    LossSettings,
    Term,
    centre_pointwise,
    correspondence,
    other_images,
    pair_loss,
    quantile_shift,
    sample_at,
    sample_points,
    stego_loss,
    unit,
)
from segmodels.stego.presets import LOSS_PRESETS, loss_preset

ONE = Term(weight=1.0)


def row(*vectors: tuple[float, ...]) -> torch.Tensor:
    """One image of height 1 whose patches are the given vectors, at length 1: (1, d, 1, w)."""
    return unit(torch.tensor(vectors).T[None, :, None, :])


def settings(**changes) -> LossSettings:
    return LossSettings(same=ONE, neighbour=ONE, random=ONE, **changes)


def test_correspondence_is_the_cosine_of_every_pair():
    source, target = row((2.0, 0.0), (1.0, 1.0)), row((0.0, 3.0), (1.0, 0.0), (-1.0, 0.0))
    got = correspondence(source, target)
    half = math.sqrt(0.5)
    assert got.shape == (1, 1, 2, 1, 3)
    np.testing.assert_allclose(
        got[0, 0, :, 0], [[0.0, 1.0, -1.0], [half, half, -half]], rtol=0, atol=1e-6
    )


def test_pointwise_centring_by_hand():
    # Rows have means 0.5 and 0.1, the global mean is 0.3: (0.8 - 0.5) + 0.3 = 0.6 and so on.
    values = torch.tensor([[0.8, 0.2], [0.3, -0.1]])[None, None, :, None, :]
    expected = [[0.6, 0.0], [0.5, 0.1]]
    np.testing.assert_allclose(centre_pointwise(values)[0, 0, :, 0], expected, atol=1e-6)


def test_pair_loss_by_hand():
    # Features: cosines [1, 0]; codes: cosines [0.6, -1], the negative one clamped to 0.
    features = row((1.0, 0.0)), row((1.0, 0.0), (0.0, 1.0))
    codes = row((1.0, 0.0)), row((0.6, 0.8), (-1.0, 0.0))
    plain = settings(pointwise=False)
    loss = pair_loss(features, codes, Term(weight=1.0, shift=0.25), plain)
    assert loss.item() == pytest.approx(-(0.6 * 0.75 + 0.0 * -0.25) / 2)


def test_stabilised_clamp_stops_at_its_ceiling():
    features = row((1.0, 0.0)), row((1.0, 0.0))
    codes = row((1.0, 0.0)), row((1.0, 0.0))
    assert pair_loss(features, codes, ONE, settings(pointwise=False)).item() == pytest.approx(-1)
    stabilised = settings(pointwise=False, clamp="stabilised")
    assert pair_loss(features, codes, ONE, stabilised).item() == pytest.approx(-0.8)


def test_pair_loss_equals_explicit_loops():
    generator = torch.Generator().manual_seed(3)
    f, g = (torch.randn(2, 5, 3, 3, generator=generator) for _ in range(2))
    c, e = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    shift = 0.07
    wanted, learned = np.zeros((2, 3, 3, 3, 3)), np.zeros((2, 3, 3, 3, 3))
    for index in np.ndindex(wanted.shape):
        n, p, q, r, s = index
        for a, b, out in ((f, g, wanted), (c, e, learned)):
            u, v = a[n, :, p, q].double(), b[n, :, r, s].double()
            out[index] = (u @ v / (u.norm() * v.norm())).item()
    centred = wanted.copy()
    for n, p, q in np.ndindex(2, 3, 3):
        centred[n, p, q] -= wanted[n, p, q].mean()
    centred += wanted.mean() - centred.mean()
    expected = -(np.maximum(learned, 0) * (centred - shift)).mean()
    f, g, c, e = map(unit, (f, g, c, e))
    got = pair_loss((f, g), (c, e), Term(weight=1.0, shift=shift), settings())
    assert got.item() == pytest.approx(expected, abs=1e-6)


def test_quantile_shift_leaves_the_stated_share_above():
    values = torch.randn(1, 5, 10, 2, 10, generator=torch.Generator().manual_seed(0))
    for share in (0.05, 0.3, 0.5, 0.99):
        above = (values > quantile_shift(values, share)).float().mean().item()
        assert above == pytest.approx(share, abs=1e-3)
    with pytest.raises(ValueError, match="positive_share"):
        quantile_shift(values, 1.0)


def test_quantile_shift_does_not_see_a_common_offset_but_the_fixed_shift_does():
    features = row((1.0, 0.0), (0.9, 0.2)), row((1.0, 0.1), (0.2, 1.0), (0.5, 0.5), (1.0, 0.9))
    codes = row((1.0, 0.2), (0.3, 1.0)), row((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 1.0))
    term = Term(weight=1.0, shift=0.1, positive_share=0.5)
    flat = settings(shift="quantile")
    with_offset = tuple(
        unit(torch.cat([f, torch.full_like(f[:, :1], 3.0)], dim=1)) for f in features
    )
    # The offset maps each cosine c to (c + 9) / 10, so the loss shrinks by exactly ten.
    plain = pair_loss(features, codes, term, flat).item()
    assert pair_loss(with_offset, codes, term, flat).item() == pytest.approx(plain / 10, rel=1e-4)
    fixed = settings()
    assert pair_loss(with_offset, codes, term, fixed).item() < -0.5


def test_loss_takes_gradient_through_codes_only():
    features = [row((1.0, 0.0), (0.5, 1.0)).requires_grad_() for _ in range(2)]
    codes = [row((1.0, 0.1), (0.3, 1.0)).requires_grad_() for _ in range(2)]
    pair_loss(tuple(features), tuple(codes), ONE, settings()).backward()
    assert features[0].grad is None
    assert features[1].grad is None
    assert codes[0].grad.abs().sum() > 0


def test_sampling_reads_the_corners_and_between_them():
    maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    points = torch.tensor([[[[-1.0, -1.0], [1.0, -1.0]], [[-1.0, 1.0], [0.0, 0.0]]]])
    np.testing.assert_allclose(sample_at(maps, points)[0, 0], [[0.0, 1.0], [2.0, 1.5]])
    drawn = sample_points(4, 11, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 11, 11, 2)
    assert drawn.min() >= -1
    assert drawn.max() <= 1


@pytest.mark.parametrize("n", [2, 3, 16])
def test_no_image_is_its_own_negative(n: int):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        partners = other_images(n, generator)
        assert not (partners == torch.arange(n)).any()
        assert set(partners.tolist()) <= set(range(n))


def test_total_is_the_weighted_sum_of_the_terms():
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(4, width, 6, 6, generator=generator) for width in (8, 8, 5, 5)]
    kinds = LossSettings(
        same=Term(0.5, 0.1), neighbour=Term(2.0, 0.2), random=Term(3.0, 0.3), points=3, negatives=2
    )
    parts = stego_loss((maps[0], maps[1]), (maps[2], maps[3]), kinds, generator)
    weighted = 0.5 * parts.same + 2 * parts.neighbour + 3 * parts.random
    assert parts.total.item() == pytest.approx(weighted.item())


def test_same_term_compares_an_image_with_itself_at_the_same_points():
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(3, width, 6, 6, generator=generator) for width in (8, 8, 5, 5)]
    kinds = LossSettings(same=Term(1.0, 0.1), neighbour=ONE, random=ONE, points=4)
    parts = stego_loss(
        (maps[0], maps[1]), (maps[2], maps[3]), kinds, torch.Generator().manual_seed(9)
    )
    points = sample_points(3, 4, torch.Generator().manual_seed(9))
    features, codes = unit(sample_at(maps[0], points)), unit(sample_at(maps[2], points))
    expected = pair_loss((features, features), (codes, codes), kinds.same, kinds)
    assert parts.same.item() == pytest.approx(expected.item())


def test_presets_are_the_published_rows():
    vits = LOSS_PRESETS["coco_vits_10_3"]
    assert (vits.random, vits.neighbour, vits.same) == (
        Term(0.63, 0.16),
        Term(0.25, 0.02),
        Term(0.67, 0.08),
    )
    for name in ("dino_vitb8", f"dino_vitb8@sha256:{'0' * 64}"):
        assert loss_preset("auto", name) is LOSS_PRESETS["coco_vitb_10_3"]
    assert loss_preset("auto", "embedded").shift == "quantile"
    with pytest.raises(ValueError, match="coco_vits_10_3"):
        loss_preset("coco")
