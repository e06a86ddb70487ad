"""Images in tar shards: found, numbered, and what is wrong with an archive."""

import io
import tarfile

import numpy as np
import pytest
from input_files import coco, paths, picture, put, reasons, scan
from PIL import Image

from segmodels.datasets.image_source import ImageSource
from segmodels.formats.decode import read_image
from segmodels.formats.errors import InputError, RejectReason


def pack(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_tar_shards_alone_and_in_a_folder(tmp_path):
    pack(tmp_path / "s1.tar", [("./b/y.png", picture(1)), ("x.png", picture(2))])
    (tmp_path / "deep").mkdir()
    pack(tmp_path / "deep" / "s2.tar", [("x.png", picture(3))])
    put(tmp_path, loose_png=picture(4))

    result = scan(tmp_path)

    rows = result.images.to_pylist()
    assert [(row["source"], row["path"]) for row in rows] == [
        (str(tmp_path / "deep" / "s2.tar"), "x.png"),
        (str(tmp_path), "loose.png"),
        (str(tmp_path / "s1.tar"), "b/y.png"),
        (str(tmp_path / "s1.tar"), "x.png"),
    ]
    for row in rows:
        assert read_image(row["source"], row["path"]).shape == (6, 8, 3)
    alone = scan(tmp_path / "s1.tar").images
    assert alone["path"].to_pylist() == ["b/y.png", "x.png"]
    # An archive given by itself numbers its images as within its folder.
    assert alone["image_id"].to_pylist() == [row["image_id"] for row in rows[2:]]


def test_odd_archives(tmp_path):
    path = pack(
        tmp_path / "s.tar",
        [
            ("a.png", picture(1)),
            ("a.png", picture(2)),
            ("note.jpg", b"{}"),
            ("note.json", b"{}"),
            ("z.png", picture(3)),
        ],
    )
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    result = scan(path)
    assert paths(result) == ["a.png", "z.png"]
    np.testing.assert_array_equal(
        read_image(path, "a.png"), np.asarray(Image.open(io.BytesIO(picture(2))))
    )
    assert result.num_other_files == 1
    assert reasons(result) == {
        "a.png": RejectReason.REPLACED_MEMBER,
        "link.png": RejectReason.UNREADABLE_FILE,
        "note.jpg": RejectReason.NOT_AN_IMAGE,
    }

    path.write_bytes(path.read_bytes()[: 3 * 512])
    with pytest.raises(InputError, match="none of the"):
        scan(path)
    pack(path, [("../a.png", picture(1))])
    with pytest.raises(InputError, match="does not lie within the image root"):
        scan(path)
    (tmp_path / "t.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(InputError, match="not an uncompressed tar"):
        scan(tmp_path / "t.tar")


def test_an_archive_that_ends_early_gives_what_it_has(tmp_path):
    path = pack(tmp_path / "s.tar", [(f"{index}.png", picture(index)) for index in range(3)])
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + last.size // 2])
    result = scan(path)
    assert paths(result) == ["0.png", "1.png"]
    assert reasons(result) == {
        "(end of the archive)": RejectReason.TRUNCATED,
        "2.png": RejectReason.TRUNCATED,
    }


def test_a_json_finds_its_images_in_archives(tmp_path):
    pack(tmp_path / "s1.tar", [("./a.png", picture(1))])
    pack(tmp_path / "s2.tar", [("b.png", picture(2)), ("a2.png", picture(3))])
    path = coco(tmp_path / "i.json", ["a.png", "b.png"])
    assert paths(scan(ImageSource(str(tmp_path), instances_json=path))) == ["a.png", "b.png"]
    pack(tmp_path / "s2.tar", [("b.png", picture(2)), ("a.png", picture(3))])
    with pytest.raises(InputError, match="keep one of them"):
        scan(ImageSource(str(tmp_path), instances_json=path))


def test_photographs_in_tar_shards(test_data):
    shard = test_data / "data" / "photos112" / "photos-002.tar"
    result = scan(shard)
    assert result.rejected.num_rows == 0
    assert min(result.images["height"].to_pylist() + result.images["width"].to_pylist()) == 112
