"""The declaration of a stage: what follows from it, and what it refuses."""

import ast
from dataclasses import dataclass, field

import dagster as dg
import pytest

from assets.stages.manifest import write_manifest
from assets.stages.partitions import CLUSTERINGS
from assets.stages.stage import NoSettings, StageRun, result, stage
from assets.stages.store import Dataset, Store
from pipelines.definitions import ASSETS
from pipelines.settings import ROOT
from segmodels.engine.settings import FREE


@dataclass(frozen=True)
class SquareSettings:
    side: int = 3


@stage(group="data", settings=SquareSettings, described={"side": "In px."}, version="1")
def square(run: StageRun[SquareSettings]):
    """A square."""

    def compute(folder):
        (folder / "area.txt").write_text(str(run.settings.side**2))
        return {"side": run.settings.side}

    return result(run.materialise(compute), {})


class Scale(dg.ConfigurableResource):
    factor: int


@stage(group="data", inputs=(square,), version="1", partitions=CLUSTERINGS)
def scaled(run: StageRun[NoSettings], scale: Scale):
    """The square's area, scaled, once a clustering."""
    area = int((run.input(square).folder / "area.txt").read_text())

    def compute(folder):
        return {"area": area * scale.factor, "clusters": run.key.num_clusters}

    return result(run.materialise(compute, run.input(square).digest, scale.factor), {})


@stage(group="data", version="1")
def secretive(run: StageRun[NoSettings]):
    """Reads what it does not declare."""
    return result(run.input(square), {})


@dataclass(frozen=True)
class CornerSettings:
    number: int = 4
    workers: int = field(default=1, metadata=FREE)


@stage(group="data", inputs=(square,), settings=CornerSettings, version="1")
def corners(run: StageRun[CornerSettings]):
    """Rows that name a square's by their ids."""
    made_from = run.input(square)

    def compute(folder):
        return {"corners": run.settings.number}

    return result(run.materialise(compute, made_from.summary["side"] > 0), {})


@stage(group="data", inputs=(square, corners), version="1")
def drawing(run: StageRun[NoSettings]):
    """A square and its corners, joined."""
    joined = run.joined(corners, square)
    return result(run.materialise(lambda folder: {}, joined.digest), {})


@stage(group="data", version="1")
def silent(run: StageRun[NoSettings]):
    """Stores nothing but counts."""
    return result(run.materialise(lambda folder: {}), {})


@pytest.fixture
def store(tmp_path):
    return Store(root=str(tmp_path), dataset=Dataset(name="shapes"))


def run_stages(store, *assets, key="k0003", config=None):
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(CLUSTERINGS.name, [key])
        partitioned = any(asset.partitions_def is not None for asset in assets)
        return dg.materialize(
            assets,
            resources={"store": store, "scale": Scale(factor=2)},
            run_config=config,
            partition_key=key if partitioned else None,
            instance=instance,
        )


def test_a_declaration_becomes_an_asset(store):
    assert scaled.dependency_keys == {square.key}
    assert scaled.partitions_def == CLUSTERINGS.definition
    assert square.code_versions_by_key == {square.key: "1"}
    assert square.descriptions_by_key == {square.key: "A square."}
    fields = square.op.config_schema.config_type.fields
    assert {name: field.description for name, field in fields.items()} == {
        "side": "In px. Default: 3."
    }


def test_inputs_settings_partition_and_resources_reach_the_function(store):
    config = {"ops": {"square": {"config": {"side": 5}}}}
    assert run_stages(store, square, config=config).success
    assert run_stages(store, scaled).success
    summary = store.stage("scaled", "k0003").require().summary
    assert summary == {"area": 50, "clusters": 3}


def test_another_input_setting_or_partition_is_another_digest(store):
    assert run_stages(store, square, scaled).success
    first = store.stage("scaled", "k0003").require().digest
    config = {"ops": {"square": {"config": {"side": 4}}}}
    assert run_stages(store, square, scaled, config=config).success
    assert store.stage("scaled", "k0003").require().digest != first
    assert run_stages(store, square, scaled, key="k0004").success
    assert store.stage("scaled", "k0004").require().digest != first


def test_a_missing_input_ends_the_run_with_the_stage_to_run(store):
    with pytest.raises(dg.Failure, match="materialise square"):
        run_stages(store, scaled)


def test_a_stage_cannot_read_what_it_does_not_declare(store):
    run_stages(store, square)
    with pytest.raises(dg.Failure, match="secretive reads square: add it to the inputs"):
        run_stages(store, secretive)


def side(length):
    return {"ops": {"square": {"config": {"side": length}}}}


def test_a_version_names_all_that_it_was_made_from(store):
    assert run_stages(store, square, corners, drawing).success
    made_from = store.stage("drawing").require().made_from
    assert made_from == {name: store.stage(name).require().digest for name in ("square", "corners")}


def test_tables_of_different_ancestry_are_not_joined(store):
    assert run_stages(store, square, corners, drawing).success
    assert run_stages(store, square, config=side(5)).success
    with pytest.raises(dg.Failure, match="corners was made from another version of square"):
        run_stages(store, drawing)
    # The corners of both squares are the same, so nothing is computed; they belong together again.
    before = store.stage("corners").require().folder
    assert run_stages(store, corners).success
    assert store.stage("corners").require().folder == before
    assert run_stages(store, drawing).success


def test_a_free_setting_changes_no_result_and_is_remembered(store):
    assert run_stages(store, square, corners).success
    first = store.stage("corners").require()
    config = {"ops": {"corners": {"config": {"workers": 8}}}}
    assert run_stages(store, corners, config=config).success
    second = store.stage("corners").require()
    assert second.digest == first.digest
    assert second.settings == {"number": 4, "workers": 8}
    config = {"ops": {"corners": {"config": {"number": 5}}}}
    assert run_stages(store, corners, config=config).success
    assert store.stage("corners").require().digest != first.digest


@pytest.mark.parametrize("lost", ["summary.json", "manifest.txt", "area.txt"])
def test_a_version_that_lost_a_file_is_made_again_by_its_stage(store, lost):
    assert run_stages(store, square).success
    version = store.stage("square").require()
    (version.folder / lost).unlink()
    if lost == "summary.json":  # As a store has it that knows no summaries.
        write_manifest(version.folder)
    assert run_stages(store, square).success
    assert store.stage("square").require() == version


def test_a_version_that_lost_its_pointer_is_not_computed_again(store):
    assert run_stages(store, square).success
    version = store.stage("square").require()
    (version.folder / "area.txt").touch()
    before = (version.folder / "area.txt").stat().st_mtime_ns
    store.stage("square").pointer.unlink()
    assert run_stages(store, square).success
    assert store.stage("square").require() == version
    assert (version.folder / "area.txt").stat().st_mtime_ns == before


def test_settings_for_a_stage_without_any_are_refused(tmp_path):
    dataset = Dataset(name="shapes", stages={"silent": {"side": 3}})
    with pytest.raises(dg.Failure, match="silent has no settings"):
        run_stages(Store(root=str(tmp_path), dataset=dataset), silent)


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.key.to_user_string())
def test_every_stage_reads_each_input_that_it_declares_and_no_other_way(asset):
    name = asset.key.to_user_string()
    (file,) = (ROOT / "assets").glob(f"*/{name}.py")
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    methods = [call for call in calls if isinstance(call.func, ast.Attribute)]
    read = {
        ast.unparse(argument)
        for call in methods
        if call.func.attr in {"input", "joined"}
        for argument in call.args
    }
    if any(call.func.attr == "inputs" for call in methods):
        return
    assert read == {key.to_user_string() for key in asset.dependency_keys}
    # The store's folders are opened by the run alone.
    assert not [call for call in methods if ast.unparse(call.func) == "store.stage"]
