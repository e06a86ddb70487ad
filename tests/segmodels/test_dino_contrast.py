"""The loss that tells objects apart: its memory, its views and its value, by hand."""

import math

import pytest
import torch
from torch import Tensor

from segmodels.dino.contrast import PROJECTION, ObjectMemory, contrast_loss, object_views
from segmodels.dino.distributed import Group
from segmodels.dino.multicrop import patch_points
from segmodels.dino.pixels import IMAGENET_MEAN, IMAGENET_STD


def vectors(*places: tuple[float, float]) -> Tensor:
    """Projections whose first two entries are given, the others 0."""
    rows = torch.zeros(len(places), PROJECTION)
    rows[:, :2] = torch.tensor(places)
    return rows


def numbered(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, PROJECTION)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_memory_holds_the_last_objects_in_their_order() -> None:
    memory = ObjectMemory(3)
    assert memory.rows().shape == (0, PROJECTION)
    for added, held in (
        ([1, 2], [1, 2]),
        ([3], [1, 2, 3]),
        ([4, 5], [3, 4, 5]),
        ([6, 7, 8, 9, 10], [8, 9, 10]),
    ):
        memory.add(numbered(*added))
        assert memory.rows()[:, 0].tolist() == held
        assert memory.count == len(held)
    again = ObjectMemory(3)
    again.load_state_dict(memory.state_dict())
    assert torch.equal(again.rows(), memory.rows())


def test_contrast_loss_by_hand() -> None:
    # The first photograph and its object are alike, the second ones at right angles; lengths do
    # not count. A cosine of 1 is 2 at this temperature.
    whole = vectors((3, 0), (0, 1))
    objects = vectors((1, 0), (-2, 0))
    memory = ObjectMemory(4)
    loss = contrast_loss(whole, objects, memory, 0.5, Group())
    e = math.exp
    first = math.log(1 + e(2) + e(-2)) - 2
    by_hand = [first, math.log(3), first, math.log(1 + 2 * e(-2))]
    assert loss.item() == pytest.approx(sum(by_hand) / 4)
    # What was seen is remembered, at length 1.
    torch.testing.assert_close(memory.rows(), vectors((1, 0), (-1, 0)))


def test_remembered_objects_are_told_apart_too() -> None:
    memory = ObjectMemory(4)
    memory.add(vectors((0, 1)))
    loss = contrast_loss(vectors((3, 0), (0, 1)), vectors((1, 0), (-2, 0)), memory, 0.5, Group())
    e = math.exp
    first = math.log(2 + e(2) + e(-2)) - 2
    by_hand = [first, math.log(3 + e(2)), first, math.log(2 + 2 * e(-2))]
    assert loss.item() == pytest.approx(sum(by_hand) / 4)
    torch.testing.assert_close(memory.rows(), vectors((0, 1), (1, 0), (-1, 0)))


def test_one_photograph_with_nothing_to_compare_to_has_no_loss() -> None:
    # A view's cosine with itself is no candidate: only the right answer is left.
    loss = contrast_loss(vectors((1, 0)), vectors((0, 1)), ObjectMemory(2), 0.1, Group())
    assert loss.item() == 0


def test_both_views_learn_and_the_memory_does_not() -> None:
    memory = ObjectMemory(4)
    memory.add(vectors((0, 1), (1, 1)))
    whole, objects = (torch.randn(3, PROJECTION, generator=seeded(s)) for s in (1, 2))
    for views in (whole, objects):
        views.requires_grad_()
    for _ in range(2):
        # Remembering happens before the gradient is asked for, and must not spoil it.
        contrast_loss(whole, objects, memory, 0.2, Group()).backward()
    assert whole.grad is not None
    assert objects.grad is not None
    assert all(gradient.abs().sum(dim=1).min() > 0 for gradient in (whole.grad, objects.grad))
    assert not memory.rows().requires_grad


def test_views_show_the_object_before_the_mean_colour() -> None:
    # All but the lower right quarter is the object; its box is everything.
    photos = torch.rand(64, 3, 24, 24, generator=seeded())
    maps = torch.ones(64, 12, 12)
    maps[:, 6:, 6:] = 0
    views = object_views(photos, maps, 16, seeded(1))
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


def test_a_photograph_without_an_object_is_shown_whole() -> None:
    photos = torch.rand(20, 3, 24, 24, generator=seeded())
    nothing = torch.full((20, 12, 12), 0.4)
    views = object_views(photos, nothing, 8, seeded(1))
    everything = object_views(photos, torch.ones(20, 12, 12), 8, seeded(1))
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
    photos = torch.rand(3, 3, 24, 24, generator=seeded())
    maps = torch.rand(3, 12, 12, generator=seeded(1))
    first, again, other = (object_views(photos, maps, 8, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.frames, other.frames)
