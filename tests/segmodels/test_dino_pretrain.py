"""Pre-training: views, losses, collapse metrics, determinism, interrupt and resume, export."""

import io
import json
import math
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segmodels.dino import load_backbone
from segmodels.dino.collapse import collapse_metrics, effective_rank
from segmodels.dino.export import export
from segmodels.dino.losses import DinoHead, Targets, cross_entropy, view_loss
from segmodels.dino.multicrop import multicrop, patch_points, points_in_crop
from segmodels.dino.patch_basis import set_patch_basis
from segmodels.dino.photos import cached_photos
from segmodels.dino.pixels import normalised_pixels
from segmodels.dino.pretrain import CHECKPOINT, PROGRESS, pretrain
from segmodels.dino.salient import (
    cached_saliency,
    saliency_loss,
    salient_cells,
    salient_patches,
)
from segmodels.dino.settings import CropSettings, PretrainSettings, SaliencySettings
from segmodels.dino.trainer import CheckpointMismatchError, Trainer, cosine
from segmodels.dino.vit import PatchEmbed

CROPS = CropSettings(global_size=16, local_size=8, num_local=2)
TINY = PretrainSettings(
    patch_size=4,
    dim=16,
    depth=2,
    num_heads=2,
    crops=CROPS,
    saliency=SaliencySettings(view_size=16, cells=6),
    photo_size=24,
    batch_size=4,
    steps=8,
    prototypes=32,
    patch_prototypes=16,
    bfloat16=False,
)


def blobs(n: int, size: int = 24) -> np.ndarray:
    """Photographs of one coloured disc each, (n, size, size, 3) uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    photos = np.empty((n, size, size, 3), np.uint8)
    for photo in photos:
        cy, cx = rng.uniform(size / 4, 3 * size / 4, 2)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < (size / 4) ** 2
        photo[:] = rng.integers(0, 256, 3)
        photo[inside] = rng.integers(0, 256, 3)
    return photos


def trainer_of(settings: PretrainSettings, photos: np.ndarray) -> Trainer:
    """A trainer that knows where the photographs' objects are."""
    salient = np.stack([salient_cells(photo, settings.saliency.cells) for photo in photos])
    return Trainer(settings, photos, salient)


def states_equal(a: Trainer, b: Trainer) -> bool:
    pairs = [(a.student, b.student), (a.teacher, b.teacher), (a.cls_targets, b.cls_targets)]
    return all(
        torch.equal(x, y)
        for one, other in pairs
        for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_views_are_a_function_of_the_seed() -> None:
    photos = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    first = multicrop(photos, CROPS, torch.Generator().manual_seed(5))
    again = multicrop(photos, CROPS, torch.Generator().manual_seed(5))
    other = multicrop(photos, CROPS, torch.Generator().manual_seed(6))
    assert first[0].pixels.shape == (6, 3, 16, 16)
    assert first[1].pixels.shape == (6, 3, 8, 8)
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.frames, b.frames)
        assert not torch.equal(a.frames, c.frames)


def test_crops_stay_within_the_photograph_and_their_scale() -> None:
    photos = torch.zeros(200, 3, 24, 24)
    _, local = multicrop(photos, CROPS, torch.Generator().manual_seed(0))
    centre, half = local.frames[:, :2], local.frames[:, 2:].abs()
    assert (centre.abs() + half).max() <= 1 + 1e-6
    area = half.prod(dim=1)
    low, high = CROPS.local_scale
    assert low - 1e-6 <= area.min() < area.max() <= high + 1e-6


def test_patch_points_of_a_mirrored_crop_by_hand() -> None:
    # Right half of the photograph, mirrored: its first column is the rightmost.
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
    targets = Targets(2, temperature=0.5, momentum=0.75)
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
    photos = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), dtype=np.uint8)
    embed = PatchEmbed(4, 3 * 4 * 4 + 2)
    torch.nn.init.constant_(embed.proj.weight, 0.5)
    set_patch_basis(embed, photos)
    assert (embed.proj.weight[48:] == 0.5).all()
    pixels = torch.from_numpy(np.stack([normalised_pixels(photo) for photo in photos]))
    with torch.no_grad():
        tokens = embed(pixels)[..., :48].flatten(0, 1)
    torch.testing.assert_close(tokens.mean(dim=0), torch.zeros(48), atol=1e-4, rtol=0)
    assert tokens.std().item() == pytest.approx(1, abs=1e-2)
    covariance = torch.cov(tokens.T)
    off_diagonal = covariance - torch.diag(covariance.diag())
    assert off_diagonal.abs().max() < 1e-3
    assert (covariance.diag().diff() <= 1e-5).all()


def test_an_epoch_shows_every_photograph_once() -> None:
    photos = np.arange(8, dtype=np.uint8)[:, None, None, None].repeat(24, 1).repeat(24, 2)
    trainer = trainer_of(TINY, photos.repeat(3, 3))
    seen = []
    for step in range(2):
        trainer.step = step
        seen += trainer._chosen().tolist()
    assert sorted(seen) == list(range(8))


def test_a_run_may_begin_with_given_weights() -> None:
    trained = trainer_of(TINY, blobs(8))
    trained.train_step()
    state = trained.student.backbone.state_dict()
    salient = np.zeros((8, 6, 6), bool)
    started = Trainer(TINY, blobs(8), salient, start=state)
    for network in (started.student, started.teacher):
        for name, tensor in network.backbone.state_dict().items():
            assert torch.equal(tensor, state[name])
    with pytest.raises(RuntimeError, match="size mismatch"):
        Trainer(replace(TINY, dim=32), blobs(8), salient, start=state)


def test_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    photos = blobs(12)
    whole = trainer_of(TINY, photos)
    for _ in range(6):
        whole.train_step()

    first = trainer_of(TINY, photos)
    for _ in range(2):
        first.train_step()
    first.save(tmp_path / "checkpoint.pt")
    torch.manual_seed(99)
    second = trainer_of(TINY, photos)
    second.resume(tmp_path / "checkpoint.pt")
    for _ in range(4):
        second.train_step()
    assert second.step == whole.step
    assert states_equal(second, whole)


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    trainer_of(TINY, blobs(12)).save(tmp_path / "checkpoint.pt")
    for other in (
        trainer_of(replace(TINY, learning_rate=0.5), blobs(12)),
        trainer_of(TINY, blobs(13)),
    ):
        with pytest.raises(CheckpointMismatchError, match="another output folder"):
            other.resume(tmp_path / "checkpoint.pt")


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
    loss = saliency_loss(keys, right, tau=0.0, temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert saliency_loss(keys, wrong, tau=0.0, temperature=0.5) > 5 * loss


def test_views_without_an_object_do_not_count() -> None:
    keys = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    one = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]])
    loss = saliency_loss(keys, one, tau=0.1, temperature=0.2)
    torch.testing.assert_close(loss, saliency_loss(keys[:1], one[:1], tau=0.1, temperature=0.2))
    nothing = saliency_loss(keys, torch.zeros(2, 4), tau=0.1, temperature=0.2)
    nothing.backward()
    assert nothing.item() == 0
    assert not keys.grad.any()


def test_keys_learn_to_tell_objects_from_their_surroundings() -> None:
    salient = torch.tensor([[1.0, 1, 1, 0, 0, 0, 0, 0]])
    keys = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    optimiser = torch.optim.SGD([keys], lr=1.0)
    for _ in range(200):
        optimiser.zero_grad()
        saliency_loss(keys, salient, tau=0.15, temperature=0.25).backward()
        optimiser.step()
    unit = torch.nn.functional.normalize(keys - keys.mean(dim=1, keepdim=True), dim=-1)[0].detach()
    same = salient[0][:, None] == salient[0]
    assert ((unit @ unit.T > 0.15) == same).all()


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


def write_photos(folder: Path, photos: np.ndarray) -> None:
    """Half of them as files, half in a tar, with one file that is no image."""
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"no image")
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for i, photo in enumerate(photos):
            if i % 2:
                Image.fromarray(photo).save(folder / f"{i}.png")
                continue
            content = io.BytesIO()
            Image.fromarray(photo).save(content, "PNG")
            member = tarfile.TarInfo(f"{i}.png")
            member.size = content.tell()
            content.seek(0)
            shard.addfile(member, content)


def test_photos_are_decoded_once_from_folders_and_tars(tmp_path: Path) -> None:
    photos = blobs(6)
    write_photos(tmp_path / "in", photos)
    decoded = cached_photos([tmp_path / "in"], tmp_path / "cache", 24)
    assert sorted(p.tobytes() for p in decoded) == sorted(p.tobytes() for p in photos)
    (cache,) = (tmp_path / "cache").iterdir()
    stamp = cache.stat().st_mtime_ns
    cached_photos([tmp_path / "in"], tmp_path / "cache", 24)
    assert cache.stat().st_mtime_ns == stamp


def test_no_photograph_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no readable photograph"):
        cached_photos([tmp_path / "in"], tmp_path / "cache", 24)
    with pytest.raises(ValueError, match="neither a folder nor"):
        cached_photos([tmp_path / "absent"], tmp_path / "cache", 24)


def test_command_runs_stops_continues_and_exports(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", blobs(12))
    said: list[str] = []

    def run(minutes: float) -> Path:
        return pretrain(
            TINY,
            [tmp_path / "in"],
            tmp_path / "out",
            minutes=minutes,
            report_every=2,
            save_every=3,
            say=said.append,
        )

    checkpoint = run(minutes=0)
    assert checkpoint == tmp_path / "out" / CHECKPOINT
    run(minutes=10)
    assert "continuing at step 0" in said
    lines = [json.loads(line) for line in (tmp_path / "out" / PROGRESS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 3, 5, 7]
    assert all(line["collapse"]["rank"] >= 1 for line in lines)

    weights = tmp_path / "tiny.safetensors"
    export(checkpoint, weights, num_heads=2, image_size=48, tau=0.2, center_keys=True)
    backbone = load_backbone(weights)
    assert (backbone.patch_size, backbone.image_size, backbone.tau) == (4, 48, 0.2)
    trained = trainer_of(TINY, blobs(12))
    trained.resume(checkpoint)
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trained.teacher.backbone(pixels).keys.unflatten(1, (4, 4))
    torch.testing.assert_close(backbone.extract(pixels).keys, expected, atol=1e-2, rtol=1e-2)


def test_plain_dino_is_a_setting() -> None:
    plain = replace(TINY.saliency, weight=0.0)
    trainer = trainer_of(
        replace(TINY, patch_weight=0.0, student_keep=1.0, saliency=plain), blobs(8)
    )
    report = trainer.train_step(measure=True)
    assert report.patch_loss == 0
    assert report.loss == report.cls_loss
    assert report.collapse is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "must be positive"),
        ({"student_keep": 0.0}, "student_keep must be in"),
        ({"patch_size": 3}, "multiple of the patch size"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(TINY, **change)


def test_too_few_photographs_are_refused() -> None:
    with pytest.raises(ValueError, match="more than the 3 photographs"):
        trainer_of(TINY, blobs(3))
