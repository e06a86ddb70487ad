"""The manifest of a finished folder: a lost or shortened file is named."""

import pytest

from assets.stages.manifest import DamagedResultError, verify, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "keys" / "c").mkdir(parents=True)
    (tmp_path / "keys" / "c" / "0").write_bytes(b"12345")
    (tmp_path / "a name with spaces.txt").write_text("abc")
    (tmp_path / "empty").touch()
    write_manifest(tmp_path)
    return tmp_path


def test_a_manifest_lists_every_file_with_its_size(folder):
    lines = (folder / "manifest.txt").read_text().splitlines()
    assert lines == ["3 a name with spaces.txt", "0 empty", "5 keys/c/0"]
    verify(folder, "dino_features")


def test_a_missing_file_is_named_with_the_stage_to_run(folder):
    (folder / "keys" / "c" / "0").unlink()
    with pytest.raises(DamagedResultError, match=r"keys/c/0 is missing: materialise dino_features"):
        verify(folder, "dino_features")


def test_a_short_file_is_named_with_both_sizes(folder):
    (folder / "keys" / "c" / "0").write_bytes(b"123")
    with pytest.raises(DamagedResultError, match=r"c/0 has 3 bytes instead of 5"):
        verify(folder, "dino_features")


def test_a_folder_without_a_manifest_is_not_finished(folder):
    (folder / "manifest.txt").unlink()
    with pytest.raises(DamagedResultError, match=r"manifest\.txt is missing"):
        verify(folder, "dino_features")


def test_files_that_were_added_later_are_no_damage(folder):
    (folder / "note.txt").write_text("mine")
    verify(folder, "dino_features")


def test_a_manifest_written_again_does_not_list_itself(folder):
    write_manifest(folder)
    verify(folder, "segmenter")
