"""Sharded stages: skip what is finished, lose nothing, the same bytes from every engine."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from assets.stages.manifest import DamagedResultError
from assets.stages.shards import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stages.store import Dataset, MissingStageError, Store, digest_of


def square(number: int, folder: Path) -> dict[str, float]:
    """Write the square of a number; negative numbers break."""
    if number < 0:
        raise ValueError(f"number must not be negative, got {number}")
    (folder / "square.txt").write_text(str(number * number))
    return {"files": 1, "total": number * number}


@dataclass(frozen=True)
class NoSettings:
    pass


def tasks_for(numbers):
    return [
        ShardTask(shard, digest_of(number), square, number) for shard, number in enumerate(numbers)
    ]


def run(stage, numbers, engine="serial"):
    lines: list[str] = []
    version, computed = materialise_shards(
        stage,
        tasks_for(numbers),
        ShardRunner(engine=engine, workers=2),
        settings=NoSettings(),
        log=lines.append,
    )
    return version, computed, lines


@pytest.fixture
def stage(tmp_path):
    return Store(root=str(tmp_path), dataset=Dataset(name="numbers")).stage("squares")


def contents(version):
    folders = finished_shards(version).folders
    return {shard: (folder / "square.txt").read_text() for shard, folder in folders.items()}


def test_every_shard_is_computed_once_and_then_kept(stage):
    version, computed, _ = run(stage, [2, 3])
    assert computed == 2
    assert contents(version) == {0: "4", 1: "9"}
    assert version.summary["totals"] == {"files": 2, "total": 13}
    again, computed, lines = run(stage, [2, 3])
    assert computed == 0
    assert again == version
    assert "2 already there, 0 to compute" in lines[0]


def test_a_new_shard_leaves_the_finished_ones_alone(stage):
    version, _, _ = run(stage, [2, 3])
    untouched = (finished_shards(version).folders[0] / "square.txt").stat().st_mtime_ns
    version, computed, _ = run(stage, [2, 3, 4])
    assert computed == 1
    kept = finished_shards(version).folders[0] / "square.txt"
    assert kept.stat().st_mtime_ns == untouched


def test_a_changed_shard_is_computed_again_and_the_old_one_removed(stage):
    run(stage, [2, 3])
    version, computed, _ = run(stage, [2, 5])
    assert computed == 1
    assert contents(version) == {0: "4", 1: "25"}
    assert len(list((stage.path / "shards").iterdir())) == 2


def test_a_failure_keeps_what_was_finished_before_it(stage):
    with pytest.raises(ValueError, match="got -1"):
        run(stage, [2, -1, 3])
    assert stage.current() is None
    version, computed, _ = run(stage, [2, 1, 3])
    assert computed == 2
    assert contents(version) == {0: "4", 1: "1", 2: "9"}


def test_shards_stay_in_numeric_order_when_a_version_is_read_back(stage):
    fresh, _, _ = run(stage, list(range(12)))
    assert finished_shards(fresh).in_order == finished_shards(stage.require()).in_order
    read_back = [int(text) for text in contents(stage.require()).values()]
    assert read_back == [number * number for number in range(12)]


def test_a_shard_that_is_not_there_yet_names_the_stage_to_run(stage):
    version, _, _ = run(stage, [2, 3])
    finished_shards(version).require([0, 1], "squares")
    with pytest.raises(MissingStageError, match=r"squares lacks the shards \[2\]"):
        finished_shards(version).require([0, 1, 2], "squares")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("1")])
def test_a_shard_that_lost_a_file_is_an_error_to_readers_and_mended_by_its_stage(stage, damage):
    version, _, _ = run(stage, [12, 13])
    (square,) = version.folder.glob("00001-*/square.txt")
    damage(square)
    with pytest.raises(DamagedResultError, match=r"square\.txt .* materialise squares again"):
        finished_shards(stage.require())
    version, computed, lines = run(stage, [12, 13])
    assert computed == 1
    assert "square.txt" in lines[0]
    assert contents(version) == {0: "144", 1: "169"}


class TestConformance:
    """What every engine must do alike."""

    @pytest.fixture(params=["serial", "processes"])
    def engine(self, request):
        return request.param

    def test_shards_are_complete_in_order_and_named_by_their_input(self, stage, engine):
        version, computed, _ = run(stage, [2, 3, 4], engine)
        assert computed == 3
        assert contents(version) == {0: "4", 1: "9", 2: "16"}
        assert list(finished_shards(version).digests.values()) == [
            digest_of(number) for number in (2, 3, 4)
        ]
        assert version.summary["totals"] == {"files": 3, "total": 29}

    def test_a_failing_shard_raises_its_own_error_and_leaves_the_old_version(self, stage, engine):
        before, _, _ = run(stage, [2, 3])
        with pytest.raises(ValueError, match="must not be negative, got -1"):
            run(stage, [2, -1, -1], engine)
        assert stage.require() == before
        assert contents(before) == {0: "4", 1: "9"}
        assert list((stage.path / "shards").glob(".tmp-*")) == []
