"""A run's clustering key: registered when new, refused at once when missing or wrong."""

import dagster as dg
import pytest

from assets.stages.partitions import CLUSTERINGS, require_partitions


@dg.asset
def first(context: dg.AssetExecutionContext) -> None:
    require_partitions(context)


@dg.asset(deps=[first], partitions_def=CLUSTERINGS.definition)
def second(context: dg.AssetExecutionContext) -> None:
    context.log.info(str(CLUSTERINGS.key_of(context)))


def job():
    both = dg.define_asset_job("both", selection=["first", "second"])
    definitions = dg.Definitions(assets=[first, second], jobs=[both])
    return definitions.resolve_job_def("both")


def test_a_new_key_registers_itself():
    with dg.instance_for_test() as instance:
        outcome = job().execute_in_process(
            instance=instance, tags={"dagster/partition": "k0300-s1"}
        )
        assert outcome.success
        assert instance.get_dynamic_partitions("clusterings") == ["k0300-s1"]


def test_a_missing_key_fails_in_the_first_stage_and_names_the_cure():
    with dg.instance_for_test() as instance, pytest.raises(dg.Failure) as failure:
        job().execute_in_process(instance=instance)
    assert 'add --tags \'{"dagster/partition": "k0300"}\'' in failure.value.description


def test_a_key_outside_the_grammar_is_refused_and_not_registered():
    with dg.instance_for_test() as instance:
        with pytest.raises(dg.Failure, match="k0800"):
            job().execute_in_process(instance=instance, tags={"dagster/partition": "800"})
        assert instance.get_dynamic_partitions("clusterings") == []


def test_masks_of_a_self_training_round_are_refused_by_name():
    with dg.instance_for_test() as instance, pytest.raises(dg.Failure) as failure:
        job().execute_in_process(instance=instance, tags={"dagster/partition": "k0300-r2"})
    assert "self-training round 2" in failure.value.description
    assert "use k0300" in failure.value.description


def test_a_run_of_unpartitioned_stages_needs_no_key():
    with dg.instance_for_test() as instance:
        assert dg.materialize([first], instance=instance).success
