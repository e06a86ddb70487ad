"""Pre-training: views, losses, collapse metrics, determinism, interrupt and resume."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretraining import CROPS, PLAIN, TINY, blobs, states_equal, trainer_of

from segmodels.backbones.pixels import normalised_pixels
from segmodels.backbones.vit import PatchEmbed, VisionTransformer
from segmodels.dino.collapse import collapse_metrics, effective_rank
from segmodels.dino.losses import CenteredTargets, cross_entropy, view_loss
from segmodels.dino.multicrop import multicrop, patch_points, points_in_crop
from segmodels.dino.networks import DinoHead, start_from
from segmodels.dino.patch_basis import set_patch_basis
from segmodels.dino.settings import ShapeSettings
from segmodels.dino.trainer import Trainer, cosine
from segmodels.engine.checkpoint import (
    CheckpointMismatchError,
    load_checkpoint,
    save_checkpoint,
)


def test_views_are_a_function_of_the_seed() -> None:
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    first = multicrop(images, CROPS, torch.Generator().manual_seed(5))
    again = multicrop(images, CROPS, torch.Generator().manual_seed(5))
    other = multicrop(images, CROPS, torch.Generator().manual_seed(6))
    assert first[0].pixels.shape == (6, 3, 16, 16)
    assert first[1].pixels.shape == (6, 3, 8, 8)
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.frames, b.frames)
        assert not torch.equal(a.frames, c.frames)


def test_crops_stay_within_the_image_and_their_scale() -> None:
    images = torch.zeros(200, 3, 24, 24)
    _, local = multicrop(images, CROPS, torch.Generator().manual_seed(0))
    centre, half = local.frames[:, :2], local.frames[:, 2:].abs()
    assert (centre.abs() + half).max() <= 1 + 1e-6
    area = half.prod(dim=1)
    low, high = CROPS.local_scale
    assert low - 1e-6 <= area.min() < area.max() <= high + 1e-6


def test_patch_points_of_a_mirrored_crop_by_hand() -> None:
    # Right half of the image, mirrored: its first column is the rightmost.
    frame = torch.tensor([[0.5, 0.0, -0.5, 1.0]])
    points = patch_points(frame, 2)
    expected = torch.tensor([[[0.75, -0.5], [0.25, -0.5], [0.75, 0.5], [0.25, 0.5]]])
    torch.testing.assert_close(points, expected)
    back = points_in_crop(points, frame)
    torch.testing.assert_close(back[0, 0], torch.tensor([-0.5, -0.5]))


def test_crops_are_mirrored_where_their_frame_says_so() -> None:
    # Dark enough that no crop is solarised: colours then keep the order of the ramp.
    ramp = torch.linspace(0, 0.2, 24).expand(20, 3, 24, 24)
    view, _ = multicrop(ramp, CROPS, torch.Generator().manual_seed(1))
    rise = view.pixels.diff(dim=3) * view.frames[:, 2].sign()[:, None, None, None]
    assert rise.min() >= -1e-5
    assert rise.amax(dim=(1, 2, 3)).min() > 0
    assert set(view.frames[:, 2].sign().tolist()) == {-1.0, 1.0}


def test_targets_are_centred_and_sharpened_by_hand() -> None:
    targets = CenteredTargets(2, temperature=0.5, momentum=0.75)
    targets.centre.copy_(torch.tensor([1.0, 0.0]))
    got = targets(torch.tensor([[1.0, 0.5], [3.0, 0.5]]))
    odds = torch.tensor([[0.0, 0.5], [2.0, 0.5]]) / 0.5
    torch.testing.assert_close(got, odds.exp() / odds.exp().sum(dim=1, keepdim=True))
    torch.testing.assert_close(targets.centre, torch.tensor([0.75 * 1 + 0.25 * 2, 0.25 * 0.5]))


def test_cross_entropy_by_hand() -> None:
    loss = cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.25, 0.75]]), 0.1)
    assert loss.item() == pytest.approx(math.log(2))


def test_view_loss_never_pairs_a_view_with_itself() -> None:
    targets = torch.eye(2)[:, None, :]
    same = torch.tensor([[[9.0, 0.0]], [[0.0, 9.0]]])
    swapped = same.flip(0)
    assert view_loss(same, targets, 1.0) > 8
    assert view_loss(swapped, targets, 1.0) < 0.01


def test_head_gives_cosines() -> None:
    head = DinoHead(8, 5, hidden_dim=8, bottleneck=4)
    head.initialise(torch.Generator().manual_seed(0))
    logits = head(torch.randn(10, 8, generator=torch.Generator().manual_seed(1)))
    assert logits.shape == (10, 5)
    assert logits.abs().max() <= 1 + 1e-6


def test_collapse_metrics_on_known_distributions() -> None:
    spread_features = torch.cat([torch.eye(4), -torch.eye(4)])
    uniform = torch.full((8, 4), 0.25)
    one_for_all = torch.eye(4)[:1].expand(8, 4)
    healthy = torch.eye(4).repeat(2, 1)

    got = collapse_metrics(uniform, spread_features)
    assert got.sharpness == pytest.approx(0, abs=1e-6)
    assert got.spread == pytest.approx(1)
    assert "uniform" in (got.warning() or "")

    got = collapse_metrics(one_for_all, spread_features)
    assert (got.sharpness, got.spread) == (pytest.approx(1), pytest.approx(0))
    assert "few prototypes" in (got.warning() or "")

    got = collapse_metrics(healthy, spread_features)
    assert (got.sharpness, got.spread) == (pytest.approx(1), pytest.approx(1))
    assert got.rank == pytest.approx(4, rel=1e-5)
    assert got.warning() is None

    line = torch.linspace(-1, 1, 8)[:, None] * torch.ones(3)
    assert "dimensions" in (collapse_metrics(healthy, line).warning() or "")


def test_without_targets_only_the_features_are_measured() -> None:
    got = collapse_metrics(None, torch.cat([torch.eye(4), -torch.eye(4)]))
    assert (got.sharpness, got.spread) == (None, None)
    assert got.rank == pytest.approx(4, rel=1e-5)
    assert got.warning() is None
    assert "dimensions" in (collapse_metrics(None, torch.ones(8, 3)).warning() or "")


def test_effective_rank_of_equal_rows_is_one() -> None:
    assert effective_rank(torch.ones(5, 3)) == 1.0


def test_cosine_ends() -> None:
    assert cosine(2, 4, 0) == 2
    assert cosine(2, 4, 0.5) == pytest.approx(3)
    assert cosine(2, 4, 1) == cosine(2, 4, 1.5) == 4


def test_runs_with_one_seed_are_identical_and_others_differ() -> None:
    runs = [trainer_of(replace(TINY, seed=seed), blobs(16)) for seed in (1, 1, 2)]
    for run in runs:
        for _ in range(3):
            run.train_step()
    assert states_equal(runs[0], runs[1])
    assert not states_equal(runs[0], runs[2])


def test_teacher_learns_only_by_averaging() -> None:
    trainer = trainer_of(replace(TINY, teacher_momentum=1.0), blobs(16))
    before = [p.clone() for p in trainer.teacher.parameters()]
    student = [p.clone() for p in trainer.student.parameters()]
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.teacher.parameters(), strict=True))
    assert not all(
        torch.equal(a, b) for a, b in zip(student, trainer.student.parameters(), strict=True)
    )


def test_prototypes_are_frozen_in_the_first_epoch_only() -> None:
    trainer = trainer_of(replace(TINY, frozen_epochs=1.0), blobs(8))
    first = trainer.student.cls_head.prototypes.clone()
    for _ in range(trainer.steps_an_epoch):
        trainer.train_step()
    assert torch.equal(trainer.student.cls_head.prototypes, first)
    trainer.train_step()
    assert not torch.equal(trainer.student.cls_head.prototypes, first)


def test_patch_basis_decorrelates_and_keeps_other_channels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), dtype=np.uint8)
    embed = PatchEmbed(4, 3 * 4 * 4 + 2)
    torch.nn.init.constant_(embed.proj.weight, 0.5)
    set_patch_basis(embed, images)
    assert (embed.proj.weight[48:] == 0.5).all()
    pixels = torch.from_numpy(np.stack([normalised_pixels(image) for image in images]))
    with torch.no_grad():
        tokens = embed(pixels)[..., :48].flatten(0, 1)
    torch.testing.assert_close(tokens.mean(dim=0), torch.zeros(48), atol=1e-4, rtol=0)
    assert tokens.std().item() == pytest.approx(1, abs=1e-2)
    covariance = torch.cov(tokens.T)
    off_diagonal = covariance - torch.diag(covariance.diag())
    assert off_diagonal.abs().max() < 1e-3
    assert (covariance.diag().diff() <= 1e-5).all()


def test_an_epoch_shows_every_image_once() -> None:
    images = np.arange(8, dtype=np.uint8)[:, None, None, None].repeat(24, 1).repeat(24, 2)
    trainer = trainer_of(TINY, images.repeat(3, 3))
    seen = []
    for step in range(2):
        trainer.step = step
        seen += trainer._batch().tolist()
    assert sorted(seen) == list(range(8))


def test_a_run_may_begin_with_given_weights() -> None:
    trained = trainer_of(TINY, blobs(8))
    trained.train_step()
    state = trained.student.backbone.state_dict()
    maps = np.zeros((8, 12, 12), np.uint8)
    started = Trainer(TINY, blobs(8), maps, start=state)
    for network in (started.student, started.teacher):
        for name, tensor in network.backbone.state_dict().items():
            assert torch.equal(tensor, state[name])
    with pytest.raises(RuntimeError, match="size mismatch"):
        Trainer(replace(TINY, dim=32), blobs(8), maps, start=state)


def test_weights_of_another_grid_have_their_positions_resampled() -> None:
    source = VisionTransformer(TINY.vit_shape)
    source.initialise(torch.Generator().manual_seed(0))
    larger = replace(TINY, saliency=replace(TINY.saliency, view_size=24))
    assert (source.shape.grid, larger.vit_shape.grid) == (4, 6)
    started = VisionTransformer(larger.vit_shape)
    start_from(started, source.state_dict())
    state = started.state_dict()
    assert torch.equal(state.pop("pos_embed"), source.position_embedding(6, 6))
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in state.items())


def test_native_grid_is_that_of_the_largest_views() -> None:
    assert replace(TINY, crops=replace(CROPS, global_size=24)).vit_shape.grid == 6
    whole = replace(TINY.saliency, view_size=24)
    assert replace(TINY, saliency=whole).vit_shape.grid == 6
    assert replace(TINY, saliency=replace(whole, weight=0.0)).vit_shape.grid == 6
    # Nothing looks at whole views.
    assert replace(PLAIN, saliency=replace(whole, weight=0.0)).vit_shape.grid == 4


def test_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    images = blobs(12)
    whole = trainer_of(TINY, images)
    for _ in range(6):
        whole.train_step()

    first = trainer_of(TINY, images)
    for _ in range(2):
        first.train_step()
    save_checkpoint(first, tmp_path / "checkpoint.pt")
    torch.manual_seed(99)
    second = trainer_of(TINY, images)
    load_checkpoint(second, tmp_path / "checkpoint.pt")
    for _ in range(4):
        second.train_step()
    assert second.step == whole.step
    assert states_equal(second, whole)


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    own = trainer_of(TINY, blobs(12))
    save_checkpoint(own, tmp_path / "checkpoint.pt")
    started = own.student.backbone.state_dict()
    for other, what in (
        (trainer_of(replace(TINY, learning_rate=0.5), blobs(12)), "settings"),
        (trainer_of(TINY, blobs(13)), "photos and maps"),
        (trainer_of(TINY, blobs(12)[::-1]), "photos and maps"),
        (Trainer(TINY, blobs(12), np.zeros_like(own.maps)), "maps"),
        (Trainer(TINY, blobs(12), own.maps, start=started), "start"),
    ):
        words = f"by a run with other {what}: .*another output folder"
        with pytest.raises(CheckpointMismatchError, match=words):
            load_checkpoint(other, tmp_path / "checkpoint.pt")


def test_plain_dino_is_a_setting() -> None:
    trainer = trainer_of(PLAIN, blobs(8))
    report = trainer.train_step(measure=True)
    assert report["patch_loss"] == 0
    assert report["loss"] == report["cls_loss"]
    assert report["rank"] >= 1
    assert report.keys() >= {"sharpness", "spread"}


@pytest.mark.parametrize("loss", ["saliency", "shape"])
def test_one_of_the_losses_on_objects_may_be_alone(loss: str) -> None:
    weighted = {loss: replace(getattr(TINY, loss), weight=0.5)}
    trainer = trainer_of(replace(PLAIN, dino_weight=0.0, **weighted), blobs(8))
    before = trainer.student.backbone.blocks[0].attn.qkv.weight.clone()
    report = trainer.train_step(measure=True)
    losses = {"saliency": report["saliency_loss"], "shape": report["shape_loss"]}
    assert losses.pop(loss) > 0
    assert set(losses.values()) == {0} == {report["cls_loss"], report["patch_loss"]}
    assert report["loss"] == pytest.approx(0.5 * report[f"{loss}_loss"])
    assert report["rank"] >= 1
    assert not report.keys() & {"sharpness", "spread"}
    assert not torch.equal(trainer.student.backbone.blocks[0].attn.qkv.weight, before)


def test_loss_is_the_weighted_sum() -> None:
    report = trainer_of(replace(TINY, dino_weight=0.3, patch_weight=0.7), blobs(8)).train_step()
    distilled = report["cls_loss"] + 0.7 * report["patch_loss"]
    assert min(report["patch_loss"], report["saliency_loss"], report["shape_loss"]) > 0
    assert report["loss"] == pytest.approx(
        0.3 * distilled + report["saliency_loss"] + TINY.shape.weight * report["shape_loss"]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "must be positive"),
        ({"student_keep": 0.0}, "student_keep must be in"),
        ({"patch_size": 3}, "multiple of the patch size"),
        ({"shape": ShapeSettings(view_size=10)}, "crop size 10 must be a multiple"),
        ({"saliency": replace(TINY.saliency, cells=3)}, "must be even and divide photo_size 24"),
        ({"saliency": replace(TINY.saliency, cells=10)}, "must be even and divide photo_size 24"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(TINY, **change)


def test_a_run_that_learns_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would be learned"):
        replace(PLAIN, dino_weight=0.0)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="more than the 3 images"):
        trainer_of(TINY, blobs(3))
