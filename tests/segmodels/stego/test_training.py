"""STEGO's head, probe, training and file: shapes, determinism, and that it learns."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import run_apart, run_killed
from stego_runs import stego_file

from segmodels.engine.checkpoint import CheckpointMismatchError
from segmodels.engine.progress import NonFiniteLossError
from segmodels.stego.features import mean_features, neighbour_table
from segmodels.stego.head import ClusterProbe, SegmentationHead, drop_channels
from segmodels.stego.model import StegoModel
from segmodels.stego.presets import LOSS_PRESETS
from segmodels.stego.training import StegoSettings, read_maps, train_stego

IN_DIM, GRID = 24, 10


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_textures(offset: float, views: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Views split at a random line between two noisy populations, and the truth.

    `offset` is the length of a direction that all patches share, as weakly trained backbones do.
    """
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(2, IN_DIM)) + offset * rng.normal(size=IN_DIM)
    truth = np.zeros((views, GRID, GRID), dtype=int)
    for view in truth:
        view[: rng.integers(2, GRID - 2)] = 1
        view[:] = (view.T if rng.random() < 0.5 else view) ^ rng.integers(0, 2)
    noise = 0.6 * rng.normal(size=(views, GRID, GRID, IN_DIM))
    return (prototypes[truth] + noise).astype(np.float16), truth


def purity(predicted: np.ndarray, truth: np.ndarray) -> float:
    table = np.zeros((predicted.max() + 1, truth.max() + 1), dtype=int)
    np.add.at(table, (predicted.ravel(), truth.ravel()), 1)
    return float(table.max(axis=1).sum() / table.sum())


def clusters_of(model: StegoModel, features: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model.probe(model.codes(torch.from_numpy(features))).argmax(dim=1).numpy()


def settings(loss: str = "quantile", **changes) -> StegoSettings:
    few_points = replace(LOSS_PRESETS[loss], points=5)
    small = {"steps": 12, "batch_size": 6, "dim": 8, "num_clusters": 2, "loss": few_points}
    return StegoSettings(**{**small, **changes})


def test_head_is_the_sum_of_a_linear_and_a_hidden_branch():
    head = SegmentationHead(IN_DIM, 70, dropout=0.1, generator=generator())
    maps = torch.randn(2, IN_DIM, 5, 7, generator=generator(1))
    codes = head(maps)
    assert codes.shape == (2, 70, 5, 7)
    patch = maps[1, :, 3, 4].double()
    weights = {name: value.double() for name, value in head.state_dict().items()}

    def layer(name: str, values: torch.Tensor) -> torch.Tensor:
        return weights[f"{name}.weight"][:, :, 0, 0] @ values + weights[f"{name}.bias"]

    expected = layer("linear", patch) + layer("output", layer("hidden", patch).relu())
    np.testing.assert_allclose(codes[1, :, 3, 4].detach(), expected, atol=1e-5)
    assert weights["hidden.weight"].shape == (IN_DIM, IN_DIM, 1, 1)


def test_each_branch_drops_its_own_channels():
    head = SegmentationHead(IN_DIM, 4, dropout=0.5, generator=generator())
    seen: dict[str, torch.Tensor] = {}
    for name in ("linear", "hidden"):
        getattr(head, name).register_forward_hook(
            lambda _module, inputs, _output, name=name: seen.update({name: inputs[0]})
        )
    maps = torch.ones(3, IN_DIM, 2, 2)
    head(maps, generator())
    assert not torch.equal(seen["linear"], seen["hidden"])
    head(maps)
    assert torch.equal(seen["linear"], maps)


def test_channel_dropout_zeroes_whole_channels_and_keeps_the_mean():
    dropped = drop_channels(torch.ones(200, 50, 2, 2), 0.1, generator())
    assert torch.equal(dropped.amin(dim=(2, 3)), dropped.amax(dim=(2, 3)))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


def test_probe_scores_are_cosines_and_its_loss_the_nearest():
    probe = ClusterProbe(2, 2, generator=generator())
    with torch.no_grad():
        probe.centroids.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    codes = torch.tensor([[3.0, 4.0], [-1.0, 0.0]]).T[None, :, None, :]
    np.testing.assert_allclose(probe(codes)[0, :, 0].detach(), [[0.6, -1.0], [0.8, 0.0]], atol=1e-6)
    loss, counts = probe.loss(codes)
    assert loss.item() == pytest.approx(-(0.8 + 0.0) / 2)
    assert counts.tolist() == [0, 2]


def test_an_unused_centroid_moves_to_what_fits_badly():
    probe = ClusterProbe(2, 3, generator=generator())
    with torch.no_grad():
        probe.centroids.copy_(torch.tensor([[1.0, 0.0], [-1.0, -1.0], [0.9, 0.1]]))
    # Ninety codes lie on the first centroid, ten far from all of them.
    codes = torch.tensor([[2.0, 0.0]] * 90 + [[0.0, 3.0]] * 10).T[None, :, None, :]
    probe.revive(torch.tensor([False, True, False]), codes, generator())
    np.testing.assert_allclose(
        probe.centroids.detach(), [[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]], atol=1e-6
    )


def test_a_centre_that_starts_far_from_all_codes_is_revived():
    rng = np.random.default_rng(0)
    prototypes = 3 * rng.normal(size=(6, IN_DIM))
    truth = rng.integers(0, 6, size=(24, 4, 4))
    features = (prototypes[truth] + 0.3 * rng.normal(size=(*truth.shape, IN_DIM))).astype("f2")
    neighbours = neighbour_table(mean_features(features))
    chosen = settings(steps=80, dim=16, num_clusters=12, revive_every=10)
    model = train_stego(features, neighbours, chosen)
    assert purity(clusters_of(model, features), truth) > 0.95


def test_maps_are_read_once_each_in_channel_order():
    features = np.arange(2 * 3 * 4 * 5, dtype=np.float16).reshape(2, 3, 4, 5)
    maps = read_maps(features, np.array([1, 0, 1]), "cpu")
    assert maps.dtype == torch.float32
    np.testing.assert_array_equal(maps, features[[1, 0, 1]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("loss", ["quantile", "coco_vits_10_3"])
def test_it_learns_to_tell_two_textures_apart(loss: str):
    features, truth = two_textures(0.0)
    chosen = settings(loss, steps=100, dim=16)
    model = train_stego(features, neighbour_table(mean_features(features)), chosen)
    assert purity(clusters_of(model, features), truth) > 0.95


def test_quantile_shifts_see_past_a_direction_that_all_patches_share():
    features, truth = two_textures(3.0)
    neighbours = neighbour_table(mean_features(features))
    learned = train_stego(features, neighbours, settings(steps=100, dim=16))
    assert purity(clusters_of(learned, features), truth) > 0.95
    # Neither the first weights nor the published shifts do that.
    first = train_stego(features, neighbours, settings(steps=1, dim=16))
    assert purity(clusters_of(first, features), truth) < 0.9
    fixed = train_stego(features, neighbours, settings("coco_vits_10_3", steps=100, dim=16))
    assert purity(clusters_of(fixed, features), truth) < 0.9


def test_the_seed_decides_every_bit():
    features, _ = two_textures(0.0)
    neighbours = neighbour_table(mean_features(features))
    torch.manual_seed(1)
    first = train_stego(features, neighbours, settings(seed=5))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = train_stego(features, neighbours, settings(seed=5))
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's chance is touched
    other = train_stego(features, neighbours, settings(seed=6))
    for name, value in first.head.state_dict().items():
        assert torch.equal(value, second.head.state_dict()[name])
        assert not torch.equal(value, other.head.state_dict()[name])
    assert torch.equal(first.probe.centroids, second.probe.centroids)
    np.testing.assert_array_equal(first.history, second.history)


def test_progress_reports_every_ten_steps_and_the_last():
    features, _ = two_textures(0.0)
    steps: list[float] = []
    model = train_stego(
        features,
        neighbour_table(mean_features(features)),
        settings(steps=12),
        lambda numbers: steps.append(numbers["step"]) if np.isfinite(numbers["loss"]) else None,
    )
    assert steps == [10, 12]
    assert model.history[:, 0].tolist() == [10, 12]


def test_a_saved_model_comes_back_whole(tmp_path: Path):
    features, _ = two_textures(0.0)
    model = train_stego(features, neighbour_table(mean_features(features)), settings())
    model.save(tmp_path / "stego.safetensors")
    loaded = StegoModel.load(tmp_path / "stego.safetensors")
    assert (loaded.in_dim, loaded.dim, loaded.num_clusters) == (IN_DIM, 8, 2)
    np.testing.assert_array_equal(clusters_of(loaded, features), clusters_of(model, features))
    model.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "stego.safetensors"
    ).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.safetensors", "stego.safetensors"]


def test_a_killed_run_continues_to_the_same_bytes(tmp_path: Path):
    features, _ = two_textures(0.0)
    neighbours = neighbour_table(mean_features(features))
    # Three epochs, revivals, and a history, each cut in the middle; 7 does not divide the views.
    chosen = settings(steps=48, num_clusters=12, batch_size=7, revive_every=9)
    run = partial(stego_file, features, neighbours, chosen)
    run_killed(partial(run, tmp_path / "killed"), step=30)
    content = torch.load(tmp_path / "killed.pt", weights_only=True)
    assert content["step"] == 25
    assert not (tmp_path / "killed").exists()
    run_apart(partial(run, tmp_path / "killed"), partial(run, tmp_path / "whole"))
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    killed, whole = (np.load(tmp_path / f"{name}.npy") for name in ("killed", "whole"))
    assert whole[:, 0].tolist() == [10, 20, 30, 40, 48]
    np.testing.assert_array_equal(killed, whole)


@pytest.mark.parametrize("what", ["settings", "views"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, what: str):
    features, _ = two_textures(0.0)
    neighbours = neighbour_table(mean_features(features))
    train_stego(features, neighbours, settings(), checkpoint=tmp_path / "checkpoint.pt")
    other = settings(seed=1 if what == "settings" else 0)
    table = neighbours[::-1] if what == "views" else neighbours
    with pytest.raises(CheckpointMismatchError, match=f"with other {what}: "):
        train_stego(features, table, other, checkpoint=tmp_path / "checkpoint.pt")


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path: Path):
    features, _ = two_textures(0.0)
    features[5] = np.nan
    neighbours = np.stack([np.roll(np.arange(24), -1)], axis=1)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(NonFiniteLossError, match=r"diverged at step (\d+) \(loss nan") as failure:
        train_stego(features, neighbours, settings(seed=1), checkpoint=path, checkpoint_every=1)
    content = torch.load(path, weights_only=True)
    assert f"at step {content['step'] + 1} " in str(failure.value)
    assert all(torch.isfinite(tensor).all() for tensor in content["head"].values())


def test_wrong_input_is_named():
    features, _ = two_textures(0.0)
    with pytest.raises(ValueError, match="at least 2 views"):
        train_stego(features[:1], np.zeros((1, 1), int), settings())
    with pytest.raises(ValueError, match="24 rows"):
        train_stego(features, np.zeros((3, 1), int), settings())
    with pytest.raises(ValueError, match="batch_size must be at least 2, got 1"):
        settings(batch_size=1)
