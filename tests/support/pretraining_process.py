"""One of the processes that torchrun starts for `test_distributed.py`; it saves its state."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pretraining import PLAIN, TINY, blobs, trainer_of

from segmodels.dino.pretrain import pretrain
from segmodels.dino.trainer import Trainer
from segmodels.engine.checkpoint import load_checkpoint, save_checkpoint
from segmodels.engine.distributed import Group, process_group
from segmodels.engine.progress import progress_sentence


def advanced(trainer: Trainer, steps: int) -> Trainer:
    for _ in range(steps):
        trainer.train_step()
    return trainer


def held(trainer: Trainer) -> dict[str, torch.Tensor]:
    parts = {
        "student": trainer.student,
        "teacher": trainer.teacher,
        "distillation": trainer.distillation,
    }
    state = {f"{p}.{name}": t for p, part in parts.items() for name, t in part.state_dict().items()}
    for name, parameter in trainer.student.named_parameters():
        if parameter.grad is not None:
            state[f"gradient.{name}"] = parameter.grad
    return state


def scenarios(out: Path, group: Group) -> dict[str, dict[str, torch.Tensor]]:
    images = blobs(16)
    one_step = advanced(trainer_of(PLAIN, images, group), 1)
    whole = advanced(trainer_of(TINY, images, group), 5)
    stopped = advanced(trainer_of(TINY, images, group), 2)
    with group.leader_first():
        if group.leads:
            save_checkpoint(stopped, out / "stopped.pt")
    resumed = trainer_of(TINY, images, group)
    load_checkpoint(resumed, out / "stopped.pt")
    # Nothing is salient for the second process: both must learn the same parameters still.
    one_sided = trainer_of(replace(TINY, dino_weight=0.0), images, group)
    if not group.leads:
        one_sided.maps = np.zeros_like(one_sided.maps)
    return {
        "one_sided": held(advanced(one_sided, 2)),
        "one_step": held(one_step),
        "whole": held(whole),
        "resumed": held(advanced(resumed, 3)),
    }


def main(images: Path, out: Path) -> None:
    with process_group("cpu") as group:
        assert group.size == 2
        # Only the first process's answer counts.
        assert group.agree(group.leads)
        # A process that starts elsewhere is brought to where the first one is.
        elsewhere = trainer_of(replace(PLAIN, seed=group.rank), blobs(16), group)
        left = {**scenarios(out, group), "start": held(elsewhere)}
        torch.save(left, out / f"rank{group.rank}.pt")
        for minutes in (0.0, 10.0):
            checkpoint = pretrain(
                TINY,
                [images],
                out / "run",
                minutes=minutes,
                report_every=2,
                save_every=3,
                on_progress=lambda numbers: print(progress_sentence(numbers)),
            )
            assert checkpoint.is_file()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
