"""Stage settings: defaults, what a dataset remembers, what a run names, in this order."""

from dataclasses import dataclass, field
from typing import Literal

import dagster as dg
import pytest

from assets.stages.manifest import DamagedResultError
from assets.stages.settings import (
    config_for,
    given_settings,
    remember,
    resolve_settings,
)
from assets.stages.store import Dataset, Store


@dataclass(frozen=True)
class Inner:
    constant: float = 1.5


@dataclass(frozen=True)
class ThingSettings:
    size: int = 480
    tau: float | None = None
    solver: Literal["lanczos", "dense"] = "lanczos"
    sides: tuple[int, ...] = (240, 320)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size must be positive, got {self.size}")


ThingConfig = config_for(ThingSettings, {"size": "Side of the square, px."})


def resolved(config, stage):
    return resolve_settings(given_settings(config, stage), ThingSettings, stage)


@pytest.fixture
def stage(tmp_path):
    return Store(root=str(tmp_path), dataset=Dataset(name="birds")).stage("things")


def test_defaults_come_from_the_dataclass(stage):
    assert resolved(ThingConfig(), stage) == ThingSettings()


def test_a_run_names_only_what_it_changes(stage):
    settings = resolved(ThingConfig(tau=0.2, sides=[64]), stage)
    assert settings == ThingSettings(tau=0.2, sides=(64,))


def test_a_stage_remembers_its_settings_for_every_partition(stage, tmp_path):
    remember(stage, ThingSettings(size=240, sides=(64,)))
    partition = Store(root=str(tmp_path), dataset=Dataset(name="birds")).stage("things", "k0030")
    settings = resolved(ThingConfig(tau=0.3), partition)
    assert settings == ThingSettings(size=240, tau=0.3, sides=(64,))


def stage_given(tmp_path, **given):
    dataset = Dataset(name="birds", stages={"things": given, "others": {"size": 1}})
    return Store(root=str(tmp_path), dataset=dataset).stage("things")


def test_a_run_config_may_name_settings_of_all_stages_at_once(tmp_path, stage):
    remember(stage, ThingSettings(size=240, tau=0.1))
    given = stage_given(tmp_path, tau=0.3, sides=[64])
    settings = resolved(ThingConfig(), given)
    assert settings == ThingSettings(size=240, tau=0.3, sides=(64,))
    # The stage's own config is the nearest.
    assert resolved(ThingConfig(tau=0.4), given).tau == 0.4


def test_null_returns_to_no_value_where_there_may_be_none(tmp_path, stage):
    remember(stage, ThingSettings(tau=0.2))
    assert resolved(ThingConfig(), stage_given(tmp_path, tau=None)).tau is None
    with pytest.raises(dg.Failure, match="size must not be null"):
        resolved(ThingConfig(), stage_given(tmp_path, size=None))


@pytest.mark.parametrize(
    ("given", "place"), [({"sise": 3}, "things.sise"), ({"size": "large"}, "things.size")]
)
def test_a_wrong_field_or_type_is_named_with_its_place(tmp_path, given, place):
    with pytest.raises(dg.Failure) as failure:
        resolved(ThingConfig(), stage_given(tmp_path, **given))
    assert failure.value.description.startswith(f"resources.dataset.config.stages.{place}: ")


def test_bad_values_fail_with_the_settings_own_sentence(stage):
    with pytest.raises(dg.Failure) as failure:
        resolved(ThingConfig(size=0), stage)
    assert failure.value.description == "config of things: size must be positive, got 0"


def test_a_choice_outside_the_list_names_the_choices(stage):
    with pytest.raises(dg.Failure) as failure:
        resolved(ThingConfig(solver="magic"), stage)
    assert "one of 'lanczos', 'dense', got 'magic'" in failure.value.description


def test_method_constants_are_not_offered_as_config():
    fields = ThingConfig.to_config_schema().as_field().config_type.fields
    assert sorted(fields) == ["sides", "size", "solver", "tau"]
    assert fields["size"].description == "Side of the square, px. Default: 480."


def test_damaged_memory_is_named_with_what_to_do(stage):
    remember(stage, ThingSettings())
    (memory,) = stage.path.parent.glob("settings/things.json")
    memory.write_text("{")
    with pytest.raises(DamagedResultError, match=r"things\.json is damaged: delete it"):
        resolved(ThingConfig(), stage)
