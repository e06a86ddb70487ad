"""The saliency loss of pre-training: what it looks at, by hand, and that keys learn from it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretraining import PLAIN, TINY, blobs, states_equal, trainer_of

from segmodels.dino.saliency_loss import patches_within, saliency_loss, salient_patches
from segmodels.dino.settings import SaliencySettings
from segmodels.dino.trainer import Trainer

ALL = SaliencySettings(tau=0.0, temperature=0.5, reach=100)


def test_salient_shares_of_a_mirrored_crop_by_hand() -> None:
    salient = torch.tensor([[[1.0, 0], [0, 0]]])
    whole, mirrored = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, -1, 1]])
    assert salient_patches(salient, whole, 2).tolist() == [[1, 0, 0, 0]]
    assert salient_patches(salient, mirrored, 2).tolist() == [[0, 1, 0, 0]]
    # The upper left quarter of the image lies within the first cell.
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


@pytest.mark.parametrize(("far_background", "counted"), [(1.0, 14), (0.5, 13), (0.0, 12)])
def test_patches_out_of_reach_by_hand(far_background: float, counted: float) -> None:
    # Two patches a side, all sixteen pairs decided alike. With no reach the two pairs of one
    # salient patch with the other are left out; far background pairs have `far_background`.
    keys = torch.tensor([[[1.0], [-1.0], [-1.0], [1.0]]])
    salient = torch.tensor([[1.0, 0, 0, 1]])
    each = math.log(1 + math.exp(-2))
    settings = replace(ALL, far_background=far_background)
    assert saliency_loss(keys, salient, settings).item() == pytest.approx(each)
    alone = saliency_loss(keys, salient, replace(settings, reach=0))
    assert alone.item() == pytest.approx(counted / 16 * each)


def test_patches_within_reach_by_hand() -> None:
    near = patches_within(1, 3)
    assert near[0].nonzero().flatten().tolist() == [0, 1, 3, 4]
    assert near[4].all()
    assert torch.equal(near, near.T)


def test_training_lowers_the_saliency_loss() -> None:
    settings = replace(
        PLAIN, dino_weight=0.0, saliency=TINY.saliency, steps=40, batch_size=8, warmup=0.0, dim=32
    )
    trainer = trainer_of(settings, blobs(16))
    losses = [trainer.train_step()["saliency_loss"] for _ in range(settings.steps)]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])


def test_without_their_weights_objects_are_not_looked_at() -> None:
    runs = [Trainer(PLAIN, blobs(8), np.full((8, 12, 12), value, np.uint8)) for value in (255, 0)]
    for run in runs:
        report = run.train_step()
        assert report["saliency_loss"] == report["shape_loss"] == 0
    assert states_equal(*runs)
