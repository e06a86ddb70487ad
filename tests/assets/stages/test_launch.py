"""Trainings that a stage starts in processes of their own: results, progress, failures."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
import trainings

from assets.stages.launch import train_apart
from assets.stages.stage import StageRun, result, stage
from assets.stages.store import Dataset, Store
from assets.stages.train_process import reports_to


@dataclass(frozen=True)
class TrainedSettings:
    training: str = "finishes"
    processes: int = 1


@stage(group="model", settings=TrainedSettings, version="1")
def trained(run: StageRun[TrainedSettings]):
    """What a training returned."""

    def compute(folder: Path):
        training = partial(getattr(trainings, run.settings.training), 20)
        return train_apart(run, training, processes=run.settings.processes)

    return result(run.materialise(compute), {})


@pytest.fixture
def materialise(tmp_path, monkeypatch):
    """Materialises the stage with settings: the outcome, its summary, and the lines of its log."""
    monkeypatch.setenv("PYTHONPATH", str(Path(trainings.__file__).parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store = Store(root=str(tmp_path), dataset=Dataset(name="tiny"))

    def run(**settings):
        with dg.instance_for_test() as instance:
            outcome = dg.materialize(
                [trained],
                resources={"store": store},
                run_config={"ops": {"trained": {"config": settings}}},
                instance=instance,
                raise_on_error=False,
            )
            entries = instance.all_logs(outcome.run_id)
        lines = [entry.user_message for entry in entries if not entry.is_dagster_event]
        current = store.stage("trained").current()
        return outcome, current and current.summary, lines

    return run


def test_a_training_returns_its_result_and_its_progress_is_logged(materialise):
    outcome, summary, lines = materialise()
    assert outcome.success
    assert summary == {"WORLD_SIZE": "", "RANK": "", "OMP_WAIT_POLICY": "PASSIVE"}
    assert "trained: resuming at step 0" in lines
    assert "trained: step 10 of 20: loss 0.1, about 10 s left" in lines


@pytest.mark.parametrize("processes", [2])
def test_the_first_of_several_processes_reports(materialise, processes):
    outcome, summary, lines = materialise(processes=processes)
    assert outcome.success
    assert (summary["WORLD_SIZE"], summary["RANK"]) == ("2", "0")
    assert lines.count("trained: resuming at step 0") == 1


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ("diverges", "lower the learning rate"),
        ("breaks", "KeyError: 'photos'"),
        ("is_killed", "run again to continue from the last checkpoint"),
    ],
)
def test_a_failure_ends_the_stage_with_a_sentence(materialise, training, sentence):
    outcome, summary, _ = materialise(training=training)
    assert summary is None
    failure = outcome.failure_data_for_node("trained")
    assert failure.user_failure_data.description.endswith(sentence)


def test_reports_are_logged_in_each_tenth_or_after_ten_seconds():
    lines: list[str] = []
    now = 0.0
    report = reports_to(lines.append, lambda: now)
    for step in range(1, 101):
        # Slow steps from 50 to 60.
        now += 4 if 50 <= step < 60 else 0.1
        report({"step": step, "total": 100, "loss": 1.0, "seconds_left": 0})
    steps = [int(line.split()[1]) for line in lines]
    assert steps == [1, 10, 20, 30, 40, 50, 53, 56, 59, 60, 70, 80, 90, 100]
