"""What the environment says, and how it is understood."""

from pathlib import Path

import pytest

from pipelines.settings import ROOT, read_settings
from pipelines.show import dataset_of_config


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in ("IMAGES", "ANNOTATIONS", "STORE", "DATASET", "CACHE", "ENGINE", "COUNTS"):
        monkeypatch.delenv(f"EXNIHILO_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "images"),
    [
        ("~/photos", "{home}/photos"),
        ("my photos", "{home}/my photos"),
        ("/data/a:b", "/data/a:{home}/b"),
        ("", ""),
    ],
)
def test_paths_are_made_absolute_one_by_one(monkeypatch, tmp_path, given, images):
    monkeypatch.setenv("EXNIHILO_IMAGES", given)
    monkeypatch.setenv("EXNIHILO_ANNOTATIONS", given)
    settings = read_settings()
    assert settings.images == settings.annotations == images.format(home=tmp_path)


def test_a_dataset_is_named_after_its_first_folder_of_images(monkeypatch):
    assert read_settings().dataset == "sample"
    monkeypatch.setenv("EXNIHILO_IMAGES", "~/my photos/:elsewhere")
    assert read_settings().dataset == "my photos"
    monkeypatch.setenv("EXNIHILO_DATASET", "trips")
    assert read_settings().dataset == "trips"


@pytest.mark.parametrize(
    ("name", "value"), [("EXNIHILO_COUNTS", "300,many"), ("EXNIHILO_ENGINE", "spark")]
)
def test_what_cannot_be_meant_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"{name} must be .*{value}"):
        read_settings()


def test_the_dataset_of_a_run_config_is_found():
    configs = ROOT / "pipelines" / "configs"
    assert dataset_of_config(configs / "sample.yaml") == "sample"
    assert dataset_of_config(configs / "folder.yaml") is None
    assert dataset_of_config(Path("/dev/null")) is None
