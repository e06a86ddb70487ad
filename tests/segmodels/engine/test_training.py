"""The training loop on a model of one number: steps, reports, checkpoints, guards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from segmodels.engine.checkpoint import CheckpointMismatchError, load_checkpoint
from segmodels.engine.progress import NonFiniteLossError, progress_sentence
from segmodels.engine.training import train


class Counter:
    """Its loss is 1 / step; its state is the sum of all steps."""

    def __init__(self, total: int = 10, seed: int = 0, diverges_at: int = 0) -> None:
        self.identity = {"format": "counter", "settings": f"seed {seed}"}
        self.total = total
        self.step = 0
        self.sum = torch.zeros(())
        self.diverges_at = diverges_at

    def train_step(self, measure: bool) -> dict[str, float]:
        self.step += 1
        self.sum += self.step
        loss = float("nan") if self.step == self.diverges_at else 1 / self.step
        return {"loss": loss} | ({"rank": 3.0} if measure else {})

    def state(self) -> dict[str, Any]:
        return {"sum": self.sum}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.sum = state["sum"]


def run(training: Counter, checkpoint: Path | None, **changes: Any) -> list[Mapping[str, float]]:
    reports: list[Mapping[str, float]] = []
    train(
        training,
        checkpoint,
        **{"checkpoint_every": 3, "report_every": 4, "on_progress": reports.append, **changes},
    )
    return reports


def test_reports_are_numbers_at_even_steps_and_at_the_last(tmp_path: Path) -> None:
    reports = run(Counter(), None)
    assert [report["step"] for report in reports] == [4, 8, 10]
    assert [report["loss"] for report in reports] == [1 / 4, 1 / 8, 1 / 10]
    assert {report["total"] for report in reports} == {10}
    assert {report["rank"] for report in reports} == {3}
    assert reports[-1]["seconds_left"] == 0 < reports[0]["seconds_left"]
    assert list(tmp_path.iterdir()) == []


def test_a_run_continues_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"

    def stop(numbers: Mapping[str, float]) -> None:
        if numbers["step"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Counter(), path, on_progress=stop)
    logged: list[str] = []
    continued = Counter()
    reports = run(continued, path, log=logged.append)
    assert logged == ["resuming at step 6"]
    assert [report["step"] for report in reports] == [8, 10]
    assert continued.sum == sum(range(11))
    assert run(Counter(), path) == []


def test_a_run_out_of_time_leaves_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert run(Counter(), path, minutes=0) == []
    assert torch.load(path, weights_only=True)["step"] == 0


def test_another_run_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    run(Counter(), path)
    with pytest.raises(CheckpointMismatchError, match=r"other settings: .*another output folder"):
        run(Counter(seed=1), path)


@pytest.mark.parametrize("diverges_at", [4, 6, 7, 10])
def test_a_diverging_run_stops_and_keeps_the_checkpoint_before(
    tmp_path: Path, diverges_at: int
) -> None:
    path = tmp_path / "checkpoint.pt"
    words = rf"diverged at step {diverges_at} \(loss nan\): lower the learning rate"
    with pytest.raises(NonFiniteLossError, match=words):
        run(Counter(diverges_at=diverges_at), path)
    kept = Counter()
    load_checkpoint(kept, path)
    assert kept.step == (diverges_at - 1) // 3 * 3
    assert kept.sum == sum(range(kept.step + 1))


def test_a_report_in_words() -> None:
    numbers = {"step": 20, "total": 50, "loss": 0.25, "shape_loss": 0.0, "seconds_left": 12.3}
    assert progress_sentence(numbers) == "step 20 of 50: loss 0.25, about 12 s left"
