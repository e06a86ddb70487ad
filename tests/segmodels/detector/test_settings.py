"""What decides a training: settings and configuration code, and nothing else."""

import shutil

import pytest

from segmodels.detector.settings import CONFIG_FOLDER, TrainSettings, config_code
from segmodels.engine.settings import deciding_settings


@pytest.fixture
def configs(tmp_path):
    return shutil.copytree(CONFIG_FOLDER, tmp_path / "configs")


def code_after(configs, file_name, change):
    path = configs / file_name
    path.write_text(change(path.read_text()))
    return config_code(str(configs / "cpu_r18.py"))


def test_a_comment_or_an_unrelated_configuration_decides_nothing(configs):
    before = config_code(str(configs / "cpu_r18.py"))
    assert code_after(configs, "cpu_r18.py", lambda text: f"# remark\n\n{text}") == before
    assert code_after(configs, "paper_r50.py", lambda text: f"{text}\nanother = 1\n") == before


@pytest.mark.parametrize(
    "file_name", ["cpu_r18.py", "cpu_r18_half.py", "_base_/panoptic_cascade.py"]
)
def test_a_value_of_the_configuration_or_of_its_bases_decides(configs, file_name):
    before = config_code(str(configs / "cpu_r18.py"))
    assert code_after(configs, file_name, lambda text: f"{text}\nanother = 1\n") != before


def test_settings_that_do_not_decide_a_training_are_free():
    free = set(TrainSettings.__dataclass_fields__) - set(deciding_settings(TrainSettings()))
    assert free == {"checkpoint_every", "keep_checkpoints", "progress_every", "workers"}
