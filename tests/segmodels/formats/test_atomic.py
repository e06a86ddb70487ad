"""Files and folders appear complete or not at all."""

import pytest

from segmodels.formats.atomic import replacing, replacing_folder, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_only_by_a_block_that_succeeds(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old ü")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert path.read_text("utf-8") == "old ü"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_a_folder_is_replaced_only_by_a_block_that_succeeds(tmp_path):
    path = tmp_path / "deep" / "result"
    with replacing_folder(path) as temporary:
        (temporary / "old").touch()
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".tmp-")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), replacing_folder(path) as temporary:
        (temporary / f"half {1 / 0}").touch()
    assert names(path) == ["old"]
    with replacing_folder(path) as temporary:
        (temporary / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    with replacing_folder(path, keep_existing=True) as temporary:
        (temporary / "newest").touch()
    assert names(path) == ["new"]
    assert names(path.parent) == ["result"]
