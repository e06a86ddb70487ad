"""Pre-training as a command: images, maps and checkpoint on disk, log, export."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from killing import run_apart, run_killed
from pretraining import PLAIN, TINY, blobs, trainer_of, write_images

from segmodels.backbones import load_backbone
from segmodels.backbones.ref import BackboneRef
from segmodels.backbones.registry import REGISTRY
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.backbones.weights import weights_digest
from segmodels.dino.export import export
from segmodels.dino.images import cached_images
from segmodels.dino.pretrain import CHECKPOINT, PROGRESS, main, pretrain
from segmodels.engine.checkpoint import load_checkpoint
from segmodels.engine.progress import NonFiniteLossError, progress_sentence


def test_images_are_decoded_once_from_folders_and_tars(tmp_path: Path) -> None:
    images = blobs(6)
    write_images(tmp_path / "in", images)
    decoded = cached_images([tmp_path / "in"], tmp_path / "cache", 24)
    assert sorted(p.tobytes() for p in decoded) == sorted(p.tobytes() for p in images)
    (cache,) = (tmp_path / "cache").iterdir()
    stamp = cache.stat().st_mtime_ns
    cached_images([tmp_path / "in"], tmp_path / "cache", 24)
    assert cache.stat().st_mtime_ns == stamp


def test_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no readable image"):
        cached_images([tmp_path / "in"], tmp_path / "cache", 24)
    with pytest.raises(ValueError, match="neither a folder nor"):
        cached_images([tmp_path / "absent"], tmp_path / "cache", 24)


def test_maps_belong_to_their_images_and_losses(tmp_path: Path) -> None:
    for name, images in (("one", blobs(8)), ("other", blobs(8)[::-1])):
        write_images(tmp_path / name, images)
    plain = replace(PLAIN, steps=1)
    pretrain(plain, [tmp_path / "one"], tmp_path / "plain", log=lambda _: None)
    assert not list((tmp_path / "plain").glob("*.maps"))
    for name in ("one", "other"):
        # As many images as before, in the same folder, but others.
        run = pretrain(
            replace(TINY, steps=1), [tmp_path / name], tmp_path / "run", log=lambda _: None
        )
        run.unlink()
    assert len(list((tmp_path / "run").glob("*.maps"))) == 2


def test_command_runs_stops_continues_and_exports(tmp_path: Path) -> None:
    write_images(tmp_path / "in", blobs(12))
    logged: list[str] = []

    def run(minutes: float) -> Path:
        return pretrain(
            TINY,
            [tmp_path / "in"],
            tmp_path / "out",
            minutes=minutes,
            report_every=2,
            save_every=3,
            log=logged.append,
        )

    checkpoint = run(minutes=0)
    assert checkpoint == tmp_path / "out" / CHECKPOINT
    run(minutes=10)
    assert "resuming at step 0" in logged
    lines = [json.loads(line) for line in (tmp_path / "out" / PROGRESS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 3, 5, 7]
    assert all(line["collapse"]["rank"] >= 1 for line in lines)

    weights = tmp_path / "tiny.safetensors"
    export(checkpoint, weights, num_heads=2, image_size=48, tau=0.2, center_keys=True)
    backbone = load_backbone(weights)
    assert (backbone.patch_size, backbone.image_size, backbone.tau) == (4, 48, 0.2)
    trained = trainer_of(TINY, cached_images([tmp_path / "in"], tmp_path / "out", 24))
    load_checkpoint(trained, checkpoint)
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trained.teacher.backbone(pixels).keys.unflatten(1, (4, 4))
    torch.testing.assert_close(backbone.extract(pixels).keys, expected, atol=1e-2, rtol=1e-2)


def test_a_killed_run_continues_to_the_same_tensors(tmp_path: Path) -> None:
    write_images(tmp_path / "in", blobs(12))
    run = partial(pretrain, TINY, [tmp_path / "in"], save_every=3, report_every=1)
    run_killed(partial(run, tmp_path / "killed"), step=5)
    assert torch.load(tmp_path / "killed" / CHECKPOINT, weights_only=True)["step"] == 3
    run_apart(partial(run, tmp_path / "killed"), partial(run, tmp_path / "whole"))
    killed, whole = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("killed", "whole")
    )
    assert killed.keys() == whole.keys()
    assert killed["step"] == whole["step"] == TINY.steps
    for part in ("student", "teacher", "distillation"):
        for name, tensor in whole[part].items():
            assert torch.equal(killed[part][name], tensor), name
    for number, state in whole["optimiser"]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(killed["optimiser"]["state"][number][name], tensor)


@pytest.mark.parametrize("report_every", [1, 20])
def test_a_run_that_diverges_writes_no_checkpoint(tmp_path: Path, report_every: int) -> None:
    write_images(tmp_path / "in", blobs(8))
    wild = replace(TINY, learning_rate=float("inf"), warmup=0.0)
    with pytest.raises(NonFiniteLossError, match="diverged at step 2 "):
        pretrain(wild, [tmp_path / "in"], tmp_path / "out", save_every=2, report_every=report_every)
    assert not (tmp_path / "out" / CHECKPOINT).exists()


def test_a_backbone_may_find_the_objects(tmp_path: Path) -> None:
    write_images(tmp_path / "in", blobs(6))
    out, weights = tmp_path / "out", tmp_path / "tiny.safetensors"
    first = pretrain(replace(TINY, steps=1), [tmp_path / "in"], out, log=lambda _: None)
    export(first, weights, num_heads=2, image_size=48, tau=0.2, center_keys=True)
    (by_hand,) = out.glob("*.maps")
    first.unlink()
    pretrain(
        replace(TINY, steps=1),
        [tmp_path / "in"],
        out,
        objects=BackboneRef(str(weights)),
        log=lambda _: None,
    )
    (found,) = set(out.glob("*.maps")) - {by_hand}
    assert found.stem == f"{by_hand.stem}-{load_backbone(weights).digest[:16]}"
    assert found.stat().st_size == by_hand.stat().st_size == 6 * 12 * 12
    assert found.read_bytes() != by_hand.read_bytes()


def test_without_self_distillation_its_numbers_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path / "in", blobs(8))
    logged: list[str] = []
    settings = replace(TINY, steps=2, dino_weight=0.0)
    pretrain(
        settings,
        [tmp_path / "in"],
        tmp_path / "out",
        report_every=2,
        on_progress=lambda numbers: logged.append(progress_sentence(numbers)),
    )
    (line,) = map(json.loads, (tmp_path / "out" / PROGRESS).read_text().splitlines())
    assert line["collapse"].keys() == {"sharpness", "spread", "rank"}
    assert line["collapse"]["sharpness"] is line["collapse"]["spread"] is None
    (sentence,) = logged
    position, measured = sentence.split(": ")
    assert position == "step 2 of 2"
    names = [part.split()[0] for part in measured.split(", ")]
    losses = ["loss", "saliency_loss", "shape_loss"]
    assert names == [*losses, "learning_rate", "rank", "about"]


def test_weights_of_the_losses_are_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At its real sizes, but out of time before the first step.
    write_images(tmp_path / "in", blobs(2))
    words = f"""pretrain --images {tmp_path / "in"} --out {tmp_path / "out"} --minutes 0
        --batch-size 2 --depth 1 --dino-weight 0 --saliency-weight 0.25 --shape-weight 0.5"""
    monkeypatch.setattr(sys, "argv", words.split())
    main()
    content = torch.load(tmp_path / "out" / CHECKPOINT, weights_only=True)
    assert content["step"] == 0
    for setting in (
        "'dino_weight': 0.0",
        "'saliency': {'weight': 0.25",
        "'shape': {'weight': 0.5",
    ):
        assert setting in content["settings"]


def test_official_weights_are_looked_for_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", blobs(2))
    model = VisionTransformer(ViTShape(16, 32, depth=1, num_heads=1, grid=4, hidden_dim=32))
    model.initialise(torch.Generator().manual_seed(0))
    torch.save(model.state_dict(), tmp_path / REGISTRY["dino_vits16"].file_name)
    words = f"""pretrain --images {tmp_path / "in"} --out {tmp_path / "out"} --minutes 0 --batch-size 2
        --depth 1 --objects dino_vits16 --cache-folder {tmp_path}"""
    monkeypatch.setattr(sys, "argv", words.split())
    main()
    (found,) = (tmp_path / "out").glob("*.maps")
    assert found.stem.endswith(weights_digest(model.state_dict())[:16])
