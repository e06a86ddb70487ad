"""The loss that reads shapes off CLS: its views and its value by hand, and that CLS learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretraining import PLAIN, TINY, blobs, trainer_of

from segmodels.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD
from segmodels.dino.multicrop import patch_points
from segmodels.dino.shape_loss import object_views, shape_loss


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shape_loss_by_hand() -> None:
    # Odds of 3 to 1 for each cell; right in one and wrong in one, and half of a cell is object.
    odds = math.log(3)
    logits = torch.tensor([[odds, odds, -odds, 0.0]])
    shares = torch.tensor([[1.0, 0.0, 0.5, 0.0]])
    sure, wrong, even = math.log(4 / 3), math.log(4), math.log(2)
    by_hand = (sure + wrong + (sure + wrong) / 2 + even) / 4
    assert shape_loss(logits, shares).item() == pytest.approx(by_hand)


def test_views_without_an_object_have_no_shape() -> None:
    logits = torch.randn(2, 4, generator=seeded(), requires_grad=True)
    shares = torch.tensor([[1.0, 0, 1, 0], [0.1, 0, 0, 0]])
    torch.testing.assert_close(shape_loss(logits, shares), shape_loss(logits[:1], shares[:1]))
    nothing = shape_loss(logits, torch.zeros(2, 4))
    nothing.backward()
    assert nothing.item() == 0
    assert not logits.grad.any()


def test_cls_learns_the_shapes_of_objects() -> None:
    settings = replace(PLAIN, dino_weight=0.0, shape=TINY.shape, steps=60, batch_size=8, dim=32)
    trainer = trainer_of(replace(settings, learning_rate=5e-3), blobs(16))
    losses = [trainer.train_step()["shape_loss"] for _ in range(settings.steps)]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])


def test_views_show_the_object_before_the_mean_colour() -> None:
    # All but the lower right quarter is the object; its box is everything.
    images = torch.rand(64, 3, 24, 24, generator=seeded())
    maps = torch.ones(64, 12, 12)
    maps[:, 6:, 6:] = 0
    views = object_views(images, maps, 16, seeded(1))
    assert views.pixels.shape == (64, 3, 16, 16)
    points = patch_points(views.frames, 16)
    # Clear of the opacity's ramp and of blur, which reaches a pixel of the view.
    outside = (points > 0.25).all(dim=-1).unflatten(1, (16, 16))
    inside = (points < -0.05).any(dim=-1).unflatten(1, (16, 16))
    ranges = []
    for view, rest, shown in zip(views.pixels, outside, inside, strict=True):
        assert rest.sum() > 8
        torch.testing.assert_close(
            view[:, rest], view[:, rest][:, :1].expand(3, int(rest.sum())), atol=1e-4, rtol=0
        )
        assert view[:, shown].std(dim=1).min() > 0.01
        ranges.append(view[:, rest].abs().max().item())
    # Where colours were left as they are, the mean colour is normalised to 0.
    assert sum(value < 1e-5 for value in ranges) >= 2


def test_what_is_hardly_salient_fades_into_the_mean_colour() -> None:
    # Certain from two thirds on, gone from one third down: of 0.6, four fifths are to be seen.
    maps = torch.full((64, 12, 12), 0.6)
    pixels = object_views(torch.ones(64, 3, 24, 24), maps, 8, seeded(1)).pixels
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    expected = (0.8 * (1 - mean) / std)[:, None, None]
    # In views whose colours were left as they are.
    assert ((pixels - expected).abs().amax(dim=(1, 2, 3)) < 1e-4).sum() >= 2


def test_an_image_without_an_object_is_shown_whole() -> None:
    images = torch.rand(20, 3, 24, 24, generator=seeded())
    nothing = torch.full((20, 12, 12), 0.4)
    views = object_views(images, nothing, 8, seeded(1))
    everything = object_views(images, torch.ones(20, 12, 12), 8, seeded(1))
    assert torch.equal(views.pixels, everything.pixels)
    assert torch.equal(views.frames, everything.frames)
    assert views.frames[:, :2].abs().max() <= 0.1 + 1e-6
    half = views.frames[:, 2:].abs()
    assert 1 - 1e-6 <= half.min() < half.max() <= 1.2 + 1e-6


def test_frames_lie_about_the_objects_box() -> None:
    # Rows 2 to 4 and columns 1 to 8 of 12: centre (-1/6, -5/12), half sizes 8/12 and 3/12.
    maps = torch.zeros(400, 12, 12)
    maps[:, 2, 1] = maps[:, 4, 8] = 0.9
    frames = object_views(torch.zeros(400, 3, 24, 24), maps, 8, seeded()).frames
    x, y, half_width, half_height = frames.unbind(dim=1)
    square = half_width.abs() < 0.5
    width = torch.where(square, 3 / 12, 8 / 12)
    for length, of in ((half_width.abs(), width), (half_height, torch.tensor(3 / 12))):
        grown = length / of
        assert 1 - 1e-5 <= grown.min() < 1.01
        assert 1.19 < grown.max() <= 1.2 + 1e-5
    assert ((x + 1 / 6).abs() / width).max() <= 0.1 + 1e-5
    assert ((y + 5 / 12).abs() / (3 / 12)).max() <= 0.1 + 1e-5
    # About half of them are squares of the shorter side, and about half mirrored.
    assert 160 < square.sum() < 240
    assert 160 < (half_width < 0).sum() < 240


def test_views_are_a_function_of_the_seed() -> None:
    images = torch.rand(3, 3, 24, 24, generator=seeded())
    maps = torch.rand(3, 12, 12, generator=seeded(1))
    first, again, other = (object_views(images, maps, 8, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.frames, other.frames)
