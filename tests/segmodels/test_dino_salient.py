"""The saliency loss of pre-training: what it looks at, by hand, and that keys learn from it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretraining import TINY, blobs, states_equal, trainer_of

from segmodels.dino.salient import (
    cached_saliency,
    patches_within,
    saliency_loss,
    salient_cells,
    salient_patches,
)
from segmodels.dino.settings import SaliencySettings
from segmodels.dino.trainer import Trainer

ALL = SaliencySettings(tau=0.0, temperature=0.5, reach=100)


def test_the_disc_is_what_stands_out() -> None:
    found = np.stack([salient_cells(photo, 8) for photo in blobs(20, size=48)])
    y, x = np.mgrid[:48, :48]
    rng = np.random.default_rng(0)
    overlaps = []
    for mask in found:
        cy, cx = rng.uniform(12, 36, 2)
        rng.integers(0, 256, 6)
        disc = ((y - cy) ** 2 + (x - cx) ** 2 < 144).reshape(8, 6, 8, 6).mean(axis=(1, 3)) > 0.5
        overlaps.append((mask & disc).sum() / (mask | disc).sum())
    assert np.median(overlaps) > 0.75


def test_nothing_stands_out_of_an_even_photograph() -> None:
    assert not salient_cells(np.full((24, 24, 3), 90, np.uint8), 6).any()


def test_saliency_is_found_once(tmp_path: Path) -> None:
    photos = blobs(6)
    said: list[str] = []
    first = cached_saliency(photos, tmp_path / "salient.bool", 6, said.append)
    again = cached_saliency(photos, tmp_path / "salient.bool", 6, said.append)
    assert np.array_equal(first, again)
    assert len(said) == 1
    assert np.array_equal(first, np.stack([salient_cells(photo, 6) for photo in photos]))


def test_salient_shares_of_a_mirrored_crop_by_hand() -> None:
    salient = torch.tensor([[[True, False], [False, False]]])
    whole, mirrored = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, -1, 1]])
    assert salient_patches(salient, whole, 2).tolist() == [[1, 0, 0, 0]]
    assert salient_patches(salient, mirrored, 2).tolist() == [[0, 1, 0, 0]]
    # The upper left quarter of the photograph lies within the first cell.
    assert salient_patches(salient, torch.tensor([[-0.5, -0.5, 0.5, 0.5]]), 2)[0, 0] == 1


def test_saliency_loss_by_hand() -> None:
    # Opposite keys on both sides: cosines 1 and -1, three patches against one.
    keys = torch.tensor([[[1.0], [-1.0], [-1.0], [-1.0]]]) + 5.0
    right = torch.tensor([[1.0, 0, 0, 0]])
    wrong = torch.tensor([[0.0, 1, 0, 0]])
    loss = saliency_loss(keys, right, ALL)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert saliency_loss(keys, wrong, ALL) > 5 * loss


def test_views_without_an_object_do_not_count() -> None:
    keys = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    one = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]])
    loss = saliency_loss(keys, one, ALL)
    torch.testing.assert_close(loss, saliency_loss(keys[:1], one[:1], ALL))
    nothing = saliency_loss(keys, torch.zeros(2, 4), ALL)
    nothing.backward()
    assert nothing.item() == 0
    assert not keys.grad.any()


def learned_cosines(keys: torch.Tensor, salient: torch.Tensor, reach: int) -> torch.Tensor:
    """Cosines of one view's centred keys after descending the loss."""
    keys = keys.clone().requires_grad_()
    optimiser = torch.optim.SGD([keys], lr=1.0)
    for _ in range(300):
        optimiser.zero_grad()
        saliency_loss(
            keys, salient, replace(ALL, tau=0.15, temperature=0.25, reach=reach)
        ).backward()
        optimiser.step()
    centred = keys.detach() - keys.detach().mean(dim=1, keepdim=True)
    unit = torch.nn.functional.normalize(centred, dim=-1)[0]
    return unit @ unit.T


def test_keys_learn_to_tell_objects_from_their_surroundings() -> None:
    salient = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0, 0]])
    keys = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    cosines = learned_cosines(keys, salient, reach=2)
    assert ((cosines > 0.15) == (salient[0][:, None] == salient[0])).all()


def test_salient_patches_out_of_reach_are_asked_nothing() -> None:
    # Two patches a side, all sixteen pairs decided alike; with no reach two of them are left out.
    keys = torch.tensor([[[1.0], [-1.0], [-1.0], [1.0]]])
    salient = torch.tensor([[1.0, 0, 0, 1]])
    each = math.log(1 + math.exp(-2))
    assert saliency_loss(keys, salient, ALL).item() == pytest.approx(each)
    alone = saliency_loss(keys, salient, replace(ALL, reach=0))
    assert alone.item() == pytest.approx(14 / 16 * each)


def test_patches_within_reach_by_hand() -> None:
    near = patches_within(1, 3)
    assert near[0].nonzero().flatten().tolist() == [0, 1, 3, 4]
    assert near[4].all()
    assert torch.equal(near, near.T)


def test_training_lowers_the_saliency_loss() -> None:
    salient = replace(TINY.saliency, weight=10.0)
    settings = replace(TINY, steps=100, batch_size=16, warmup=0.0, dim=32, saliency=salient)
    trainer = trainer_of(settings, blobs(64))
    losses = [trainer.train_step().saliency_loss for _ in range(100)]
    assert np.mean(losses[-20:]) < 0.95 * np.mean(losses[:5])


def test_without_its_weight_saliency_is_not_looked_at() -> None:
    plain = replace(TINY, saliency=replace(TINY.saliency, weight=0.0))
    runs = [Trainer(plain, blobs(8), np.full((8, 6, 6), value)) for value in (True, False)]
    for run in runs:
        assert run.train_step().saliency_loss == 0
    assert states_equal(*runs)
