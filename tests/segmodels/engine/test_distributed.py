"""Pre-training in two processes that torchrun starts: one network, each its half of a step."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretraining_process
import pytest
import torch
from PIL import Image
from pretraining import PLAIN, TINY, blobs, trainer_of

from segmodels.dino.losses import view_loss
from segmodels.dino.multicrop import multicrop
from segmodels.dino.pretrain import CHECKPOINT, PROGRESS
from segmodels.engine.distributed import Group, process_group

Left = dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of what the two processes left, and their output."""
    out = tmp_path_factory.mktemp("processes")
    images = out / "photos"
    images.mkdir()
    for number, image in enumerate(blobs(12)):
        Image.fromarray(image).save(images / f"{number:02}.png")
    script = Path(pretraining_process.__file__)
    root = script.parents[2]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(script), str(images), str(out),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        output, errors = run.communicate(timeout=120)
    finally:
        # Asked to end, torchrun ends its processes first; killed, it would leave them behind.
        run.terminate()
        run.wait()
    assert run.returncode == 0, errors
    return out, output


@pytest.fixture(scope="module")
def left(finished: tuple[Path, str]) -> list[Left]:
    return [torch.load(finished[0] / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("scenario", ["start", "one_step", "one_sided", "whole", "resumed"])
def test_all_processes_hold_the_same(left: list[Left], scenario: str) -> None:
    first, second = (one[scenario] for one in left)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_resuming_ends_as_an_uninterrupted_run(left: list[Left]) -> None:
    whole, resumed = left[0]["whole"], left[0]["resumed"]
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    centre = "distillation.cls_targets.centre"
    assert not torch.equal(whole[centre], left[0]["one_step"][centre])


def test_gradient_and_centre_are_the_means_of_both_halves(left: list[Left]) -> None:
    """By hand, in this process: DINO's loss of each half with the draws of its process."""
    trainer = trainer_of(PLAIN, blobs(16))
    order = np.random.default_rng([PLAIN.seed, 0, 0]).permutation(16)
    chosen = np.sort(order[: PLAIN.batch_size])
    gradients, means = [], []
    for rank, words in ((0, [PLAIN.seed, 1, 0]), (1, [PLAIN.seed, 1, 0, 1])):
        high, low = np.random.SeedSequence(words).generate_state(2).tolist()
        images = torch.from_numpy(blobs(16)[chosen[rank::2]]).permute(0, 3, 1, 2).float() / 255
        far, near = multicrop(images, PLAIN.crops, torch.Generator().manual_seed(high << 32 | low))
        with torch.no_grad():
            seen = trainer.teacher.cls_head(trainer.teacher.backbone(far.pixels).cls)
        means.append(seen.mean(dim=0))
        student = trainer.student.backbone
        cls = torch.cat([student(far.pixels).cls, student(near.pixels).cls])
        loss = view_loss(
            trainer.student.cls_head(cls).unflatten(0, (-1, 2)),
            (seen / PLAIN.teacher_temperature).softmax(dim=-1).unflatten(0, (2, 2)),
            PLAIN.student_temperature,
        )
        trainer.student.zero_grad()
        loss.backward()
        gradients.append(
            {
                name: parameter.grad.clone()
                for name, parameter in trainer.student.named_parameters()
                if parameter.grad is not None and not name.endswith("prototypes")
            }
        )
    got = {
        name.removeprefix("gradient."): tensor
        for name, tensor in left[0]["one_step"].items()
        if name.startswith("gradient.")
    }
    mean = {name: (one + gradients[1][name]) / 2 for name, one in gradients[0].items()}
    # What the optimiser sees is clipped to this length.
    length = torch.stack([gradient.norm() for gradient in mean.values()]).norm()
    scale = min(1.0, PLAIN.gradient_clip / (length.item() + 1e-6))
    assert got.keys() == mean.keys()
    for name, gradient in mean.items():
        torch.testing.assert_close(got[name], scale * gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        left[0]["one_step"]["distillation.cls_targets.centre"],
        (1 - PLAIN.centre_momentum) * (means[0] + means[1]) / 2,
    )


def test_one_process_writes_and_speaks(finished: tuple[Path, str]) -> None:
    out, output = finished
    assert output.count("resuming at step 0") == 1
    assert output.count("step 4 of 8: loss") == 1
    lines = [json.loads(line) for line in (out / "run" / PROGRESS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 3, 5, 7]
    kinds = sorted(path.suffix for path in (out / "run").iterdir())
    assert kinds == [".jsonl", ".maps", Path(CHECKPOINT).suffix, ".rgb"]


def test_processes_share_out_each_step_and_draw_differently() -> None:
    # No step is run: the parts are known before anything is exchanged.
    parts = [trainer_of(TINY, blobs(16)) for _ in range(2)]
    whole = parts[0]._batch().tolist()
    draws = []
    for rank, trainer in enumerate(parts):
        trainer.group = Group(rank, 2)
        draws.append(trainer._generator(1).initial_seed())
    assert sorted(number for trainer in parts for number in trainer._batch().tolist()) == whole
    assert len(set(draws)) == 2


def test_uneven_parts_are_refused() -> None:
    words = "batch_size 4 must be a multiple of the 3 processes"
    with pytest.raises(ValueError, match=words):
        trainer_of(TINY, blobs(16), Group(0, 3))
    trainer_of(replace(TINY, batch_size=3), blobs(16), Group())


def test_without_torchrun_a_process_is_alone() -> None:
    with process_group("cpu") as group:
        assert group == Group(0, 1, torch.device("cpu"))
        tensor = torch.arange(3.0)
        group.mean_([tensor])
        group.take_first_([tensor])
        assert tensor.tolist() == [0, 1, 2]
        assert not group.agree(False)
