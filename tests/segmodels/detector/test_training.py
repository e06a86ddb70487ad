"""Training: resuming, many clusters, starts, failures."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from killing import run_apart, run_killed

from segmodels.detector.prediction import predict_panoptic
from segmodels.detector.settings import TrainSettings
from segmodels.detector.training import last_checkpoint, main, train_segmenter, training_summary
from segmodels.engine.checkpoint import CheckpointMismatchError
from segmodels.engine.progress import NonFiniteLossError
from segmodels.formats.arrow import read_table

SMALL = TrainSettings(
    iterations=4, batch_size=2, short_sides=(48, 64), long_side=96, checkpoint_every=2,
    progress_every=1,
)  # fmt: skip


class Stopped(RuntimeError):
    """What an interrupted run raises here."""


def train(shapes, work_dir: Path, settings: TrainSettings = SMALL, **changes):
    return train_segmenter(shapes.images, shapes.labels, work_dir, settings, **changes)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_an_interrupted_run_ends_like_an_uninterrupted_one(shapes, tmp_path: Path) -> None:
    whole = train(shapes, tmp_path / "whole")
    reports: list[dict] = []

    def stop(report: dict) -> None:
        reports.append(report)
        if report["step"] == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(shapes, tmp_path / "cut", on_progress=stop)
    moved = (tmp_path / "cut").rename(tmp_path / "moved")
    assert last_checkpoint(moved) == moved / "iter_2.pth"
    resumed = train(shapes, moved, on_progress=reports.append)
    assert [report["step"] for report in reports] == [1, 2, 3, 3, 4]
    assert resumed.checkpoint == moved / "iter_4.pth"
    assert resumed.iterations == whole.iterations == 4
    expected = weights(whole.checkpoint)
    for name, value in weights(resumed.checkpoint).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    assert resumed.losses == pytest.approx(whole.losses, rel=1e-4)

    # Trained to the end, a further call trains nothing.
    again = train(shapes, moved, on_progress=reports.append)
    assert (again.checkpoint, len(reports)) == (resumed.checkpoint, 5)
    with pytest.raises(CheckpointMismatchError, match=r"other settings \(seed\)"):
        train(shapes, moved, replace(SMALL, seed=1))

    scalars = list(moved.glob("*/vis_data/scalars.json"))
    assert {"loss", "lr", "loss_seg", "s2.loss_cls"} <= json.loads(
        scalars[0].read_text().splitlines()[0]
    ).keys()
    summary = training_summary(moved)
    assert [record["step"] for record in summary["history"]] == [1, 2, 3, 4]
    assert summary["losses"] == resumed.losses
    report = reports[-1]
    assert (report["step"], report["total"], report["seconds_left"]) == (4, 4, 0)
    assert report["loss"] > 0


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(shapes, tmp_path: Path) -> None:
    run = partial(train_segmenter, shapes.images, shapes.labels, settings=SMALL)
    run_killed(partial(run, work_dir=tmp_path / "killed"), step=3)
    assert last_checkpoint(tmp_path / "killed") == tmp_path / "killed/iter_2.pth"
    run_apart(*(partial(run, work_dir=tmp_path / name) for name in ("killed", "whole")))
    killed, whole = (weights(tmp_path / name / "iter_4.pth") for name in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == []
    results = {(tmp_path / name / "result.json").read_bytes() for name in ("killed", "whole")}
    assert len(results) == 1


@pytest.mark.parametrize("class_agnostic_masks", [True, False])
def test_more_than_a_thousand_clusters_train_and_predict(
    draw_shapes, tmp_path: Path, class_agnostic_masks: bool
) -> None:
    shapes = draw_shapes(count=2, things=1100, stuff=27, seed=5)
    settings = replace(
        SMALL, iterations=1, short_sides=(48,), class_agnostic_masks=class_agnostic_masks
    )
    result = train(shapes, tmp_path / "run", settings)
    # The thing label 1100 and the void of the padding did not meet: the semantic loss is that of
    # 28 classes at the start, about log 28 times its weight.
    assert 0.5 < result.losses["loss_seg"] < 3.0
    images = read_table(shapes.images)
    assert predict_panoptic(images, tmp_path / "run", tmp_path / "out")["images"] == 2
    categories = json.loads((tmp_path / "out/panoptic.json").read_text())["categories"]
    assert len(categories) == 1127


def test_a_diverging_run_stops_and_keeps_no_broken_checkpoint(shapes, tmp_path: Path) -> None:
    settings = replace(SMALL, learning_rate=1e20, checkpoint_every=100, iterations=8)
    with pytest.raises(NonFiniteLossError, match="lower the learning rate"):
        train(shapes, tmp_path, settings)
    assert last_checkpoint(tmp_path) is None


def test_a_run_starts_from_a_segmenter_or_a_backbone(shapes, draw_shapes, tmp_path: Path) -> None:
    first = train(shapes, tmp_path / "first", replace(SMALL, iterations=1))
    learned = weights(first.checkpoint)
    still = replace(SMALL, iterations=1, learning_rate=1e-12)
    # Another number of clusters: the heads that depend on it keep their own start.
    others = draw_shapes(count=2, things=5, stuff=2)
    second = train(
        others, tmp_path / "second", replace(still, init_checkpoint=str(first.checkpoint))
    )
    begun = weights(second.checkpoint)
    for name in ("backbone.conv1.weight", "rpn_head.rpn_cls.weight"):
        torch.testing.assert_close(begun[name], learned[name])
    assert begun["roi_head.bbox_head.0.fc_cls.weight"].shape == (6, 128)

    # As DINO's ResNet-50 file: the bare names of the backbone.
    backbone = {
        name.removeprefix("backbone."): value
        for name, value in learned.items()
        if name.startswith("backbone.")
    }
    torch.save(backbone, tmp_path / "backbone.pth")
    start = replace(still, init_checkpoint=str(tmp_path / "backbone.pth"))
    third = weights(train(shapes, tmp_path / "third", start).checkpoint)
    torch.testing.assert_close(third["backbone.conv1.weight"], learned["backbone.conv1.weight"])

    del backbone["layer4.1.conv2.weight"]
    torch.save(backbone, tmp_path / "broken.pth")
    broken = replace(still, init_checkpoint=str(tmp_path / "broken.pth"))
    with pytest.raises(ValueError, match=r"1 of its tensors .* layer4\.1\.conv2\.weight"):
        train(shapes, tmp_path / "fourth", broken)


def test_the_command_trains_from_a_settings_file(shapes, tmp_path: Path, capsys) -> None:
    (tmp_path / "settings.json").write_text(replace(SMALL, iterations=1).to_json())
    main(
        [str(shapes.images), str(shapes.labels), str(tmp_path / "run"),
         "--settings", str(tmp_path / "settings.json"), "--device", "cpu"]
    )  # fmt: skip
    assert json.loads(capsys.readouterr().out)["checkpoint"].endswith("iter_1.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": "gpu_r101"}, "config must be one of"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"drop_threshold": 1.0}, "drop_threshold must be in"),
    ],
)
def test_wrong_settings_fail_at_once(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**changes)


def test_settings_survive_json_and_unknown_ones_do_not() -> None:
    assert TrainSettings.from_json(SMALL.to_json()) == SMALL
    with pytest.raises(ValueError, match=r"unknown settings \['epochs'\]"):
        TrainSettings.from_json('{"epochs": 3}')


def test_the_paper_configuration_builds_for_its_numbers(shapes, tmp_path: Path) -> None:
    from segmodels.detector.registration import register
    from segmodels.detector.train_config import build_train_config

    register()
    config = build_train_config(
        TrainSettings(config="paper_r50"), images_table=shapes.images,
        pseudo_labels=shapes.labels, work_dir=tmp_path, num_things=800, num_stuff=27,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert config.train_cfg.max_iters == 90_000
    assert config.train_dataloader.batch_size == 16
    assert config.param_scheduler[1]["milestones"] == [70_000, 83_333]
    assert config.optim_wrapper.optimizer.lr == 0.01
    assert [head.num_classes for head in config.model.roi_head.bbox_head] == [800] * 3
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    from segmodels.detector.registration import quiet_third_parties

    with quiet_third_parties(), DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    assert model.semantic_head.conv_logits.out_channels == 28
    assert model.roi_head.mask_head[0].conv_logits.out_channels == 800
