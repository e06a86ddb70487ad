"""From what users have on disk to the images table."""

import hashlib
import os
import shutil

import pytest
from input_files import coco, paths, picture, put, reasons, scan
from PIL import Image

from segmodels.datasets.image_source import ImageSource, sources_state
from segmodels.datasets.images import IMAGES_SCHEMA, REJECTED_SCHEMA
from segmodels.datasets.listing import is_hidden, list_images
from segmodels.datasets.scan import scan_sources
from segmodels.formats.decode import read_image
from segmodels.formats.errors import AnnotationError, InputError, RejectReason
from segmodels.formats.image_ids import stable_image_id


def test_a_folder_of_any_depth(tmp_path):
    put(tmp_path, b_png=picture(1), a__z__x_png=picture(2, 5, 7), a__c_png=picture(3))

    result = scan(tmp_path)

    assert result.images.schema.equals(IMAGES_SCHEMA)
    assert result.rejected.schema.equals(REJECTED_SCHEMA)
    assert result.rejected.num_rows == 0
    assert paths(result) == ["a/c.png", "a/z/x.png", "b.png"]
    row = result.images.to_pylist()[1]
    assert row == {
        "image_id": stable_image_id("a/z/x.png"),
        "source": str(tmp_path),
        "path": "a/z/x.png",
        "height": 5,
        "width": 7,
        "sha256": hashlib.sha256(picture(2, 5, 7)).hexdigest(),
        "split": "train",
        "shard": 0,
    }
    assert read_image(row["source"], row["path"]).shape == (5, 7, 3)


def test_ids_are_pinned_positive_and_exact_in_json():
    # A change of these would orphan every stored mask.
    assert stable_image_id("a/b.jpg") == int(hashlib.sha256(b"a/b.jpg").hexdigest()[:16], 16) >> 11
    ids = {stable_image_id(f"{index}.jpg") for index in range(2000)}
    assert len(ids) == 2000
    assert all(0 < image_id < 2**53 for image_id in ids)


def test_whatever_cannot_be_taken_is_a_row_with_the_reason(tmp_path):
    whole = picture(1, 20, 20)
    put(
        tmp_path,
        fine_png=whole,
        copy_png=whole,
        cut_png=whole[: len(whole) // 2],
        empty_jpg=b"",
        notes_jpg=b"remember the milk",
        large_png=picture(2, 50, 50),
    )
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(3))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "pipe.png")

    result = scan(tmp_path, max_pixels=400)

    assert paths(result) == ["copy.png"]
    assert reasons(result) == {
        "caf\\xe9.png": RejectReason.UNREADABLE_NAME,
        "cut.png": RejectReason.TRUNCATED,
        "empty.jpg": RejectReason.EMPTY_FILE,
        "fine.png": RejectReason.DUPLICATE_CONTENT,
        "gone.png": RejectReason.UNREADABLE_FILE,
        "large.png": RejectReason.OVER_PIXEL_LIMIT,
        "notes.jpg": RejectReason.NOT_AN_IMAGE,
        "pipe.png": RejectReason.UNREADABLE_FILE,
    }
    details = result.rejected["detail"].to_pylist()
    assert all(details)
    assert any("copy.png" in detail for detail in details)


def test_rotated_size_is_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10)).save(tmp_path / "turned.jpg", exif=exif)
    row = scan(tmp_path).images.to_pylist()[0]
    assert (row["height"], row["width"]) == (30, 10)


def test_a_json_names_and_numbers_the_images(tmp_path):
    put(tmp_path / "images", a_png=picture(1), b_png=picture(2), unlisted_png=picture(3))
    put(tmp_path / "images", notes_txt=b"no image")
    path = coco(tmp_path / "i.json", ["b.png", "./a.png"], first_id=40)

    result = scan(ImageSource(str(tmp_path / "images"), instances_json=path, split="val"))

    assert paths(result) == ["a.png", "b.png"]
    assert result.images["image_id"].to_pylist() == [41, 40]
    assert result.images["split"].to_pylist() == ["val", "val"]
    assert (result.num_other_files, result.rejected.num_rows) == (2, 0)


def test_instances_and_panoptic_of_one_source_share_images(tmp_path):
    put(tmp_path / "images", a_png=picture(1), b_png=picture(2))
    (tmp_path / "p").mkdir()
    source = ImageSource(
        str(tmp_path / "images"),
        instances_json=coco(tmp_path / "i.json", ["a.png", "b.png"]),
        panoptic_json=coco(tmp_path / "p.json", ["a.png"]),
    )
    assert scan(source).images["image_id"].to_pylist() == [1, 2]

    for names, first_id in ((["b.png"], 1), (["a.png"], 9)):
        coco(tmp_path / "p.json", names, first_id=first_id)
        with pytest.raises(AnnotationError, match="disagree on image"):
            scan(source)
    coco(tmp_path / "p.json", ["a.png"], categories=[{"id": 1, "name": "dog"}])
    with pytest.raises(AnnotationError, match="disagree on category 1"):
        scan(source)


def test_an_image_of_another_size_than_annotated_is_rejected(tmp_path):
    put(tmp_path, a_png=picture(1), b_png=picture(2, 8, 6))
    path = coco(tmp_path / "i.json", ["a.png", "b.png"])
    result = scan(ImageSource(str(tmp_path), instances_json=path))
    assert paths(result) == ["a.png"]
    assert reasons(result) == {"b.png": RejectReason.SIZE_MISMATCH}


def user_mistakes(root):
    """What a user may get wrong, with the words of the one sentence that helps."""
    put(root / "full", a_png=picture(1))
    put(root / "other", a_png=picture(2))
    (root / "empty" / "within").mkdir(parents=True)
    listed = coco(root / "i.json", ["a.png", "b.png", "c.png"])
    clash = coco(root / "clash.json", ["a.png"], first_id=1)
    nothing = coco(root / "nothing.json", [])
    upward = coco(root / "upward.json", ["../full/a.png"])
    one = coco(root / "one.json", ["a.png"])
    (root / "one").mkdir()
    full, other = str(root / "full"), str(root / "other")
    return {
        "no such folder": ([ImageSource(str(root / "ful"))], "does not exist"),
        "a file for a folder": ([ImageSource(listed)], "neither a folder nor a .tar"),
        "an empty folder": ([ImageSource(str(root / "empty"))], "there are no files in"),
        "no source": ([], "no image source"),
        "missing images": (
            [ImageSource(full, listed)],
            r"2 of the 3 images .* for example 'b\.png'",
        ),
        "an upward name": ([ImageSource(other, upward)], "not lie within the image root"),
        "a json without images": ([ImageSource(full, nothing)], "list no image"),
        "no json": ([ImageSource(full, str(root / "no.json"))], r"no\.json cannot be read"),
        "no PNGs": (
            [ImageSource(full, panoptic_json=one, panoptic_folder=str(root / "no"))],
            "set panoptic_folder",
        ),
        "two jsons of one id": (
            [ImageSource(full, one), ImageSource(other, clash)],
            "same image id 1; renumber",
        ),
        "two folders of one name": (
            [ImageSource(full), ImageSource(other)],
            "give the folder above both",
        ),
        "a folder twice": ([ImageSource(full), ImageSource(full)], "same image id"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "no such folder",
        "a file for a folder",
        "an empty folder",
        "no source",
        "missing images",
        "an upward name",
        "a json without images",
        "no json",
        "no PNGs",
        "two jsons of one id",
        "two folders of one name",
        "a folder twice",
    ],
)
def test_a_mistake_ends_in_one_sentence_before_any_image_is_read(tmp_path, name):
    sources, message = user_mistakes(tmp_path)[name]
    progress = []
    with pytest.raises(InputError, match=message) as caught:
        scan_sources(sources, log=progress.append)
    assert progress == []
    assert "\n" not in str(caught.value)


def test_settings_out_of_range(tmp_path):
    put(tmp_path, a_png=picture(1))
    for options in ({"shard_size": 0}, {"max_pixels": 0}, {"evaluation_fraction": 1.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            scan(tmp_path, **options)
    with pytest.raises(InputError, match="must be train or val"):
        ImageSource("x", split="test")
    with pytest.raises(InputError, match="set panoptic_json"):
        ImageSource("x", panoptic_folder="y")


def test_links_stay_within_the_root(tmp_path):
    root = put(tmp_path / "root", a__one_png=picture(1))
    outside = put(tmp_path / "outside", two_png=picture(2))
    (root / "again.png").symlink_to(root / "a" / "one.png")
    (root / "b").symlink_to(root / "a")
    (root / "loop").symlink_to(root)
    result = scan(root)
    assert paths(result) == ["a/one.png"]
    assert reasons(result) == {"again.png": RejectReason.DUPLICATE_CONTENT}

    (root / "two.png").symlink_to(outside / "two.png")
    with pytest.raises(InputError, match=r"two\.png leads out of the image root"):
        scan(root)
    path = coco(tmp_path / "i.json", ["a/one.png"])
    assert paths(scan(ImageSource(str(root), path))) == ["a/one.png"]
    coco(tmp_path / "i.json", ["two.png"])
    with pytest.raises(InputError, match=r"two\.png leads out of the image root"):
        scan(ImageSource(str(root), path))

    (root / "two.png").unlink()
    (root / "c").symlink_to(outside)
    with pytest.raises(InputError, match="c leads out of the image root"):
        scan(root)
    coco(tmp_path / "i.json", ["c/two.png"])
    with pytest.raises(InputError, match=r"c/two\.png leads out of the image root"):
        scan(ImageSource(str(root), path))


def test_a_root_that_is_a_link_is_fine(tmp_path):
    put(tmp_path / "root", a_png=picture(1))
    (tmp_path / "link").symlink_to(tmp_path / "root")
    result = scan(tmp_path / "link")
    assert result.images["source"].to_pylist() == [str(tmp_path / "link")]


def test_files_beside_images_may_share_their_name_over_sources(tmp_path):
    one = put(tmp_path / "one", a_png=picture(1), README_md=b"one", plain_=picture(5))
    two = put(tmp_path / "two", b_png=picture(2), README_md=b"two")
    assert scan(one, two).images.num_rows == 3
    # Without a suffix it is known only once decoded that both are images.
    shutil.copy(one / "a.png", two / "plain.")
    with pytest.raises(InputError, match="same image id"):
        scan(two, put(tmp_path / "three", plain_=picture(6)))


def test_files_of_other_types_and_hidden_files_are_counted_not_rejected(tmp_path):
    put(
        tmp_path,
        a_png=picture(1),
        Thumbs_db=b"thumbs",
        a_xmp=b"<x/>",
        a_CR2=b"II*\0raw",
        b_json=b"",
    )
    for name in (".DS_Store", "._a.png", "._s.tar", ".cache/c.png", ".gone.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(2) if name.startswith(".cache") else b"mac")
    (tmp_path / ".gone.png").unlink()
    (tmp_path / ".gone.png").symlink_to(tmp_path / "nothing.png")
    # What has an image's suffix or content, or no suffix, is judged as an image.
    put(tmp_path, d_dat=picture(3), e_tif=b"II*\0", f_HEIC=b"heic", README_=b"hello")
    (tmp_path / "README.").rename(tmp_path / "README")

    result = scan(tmp_path)

    assert paths(result) == ["a.png", "d.dat"]
    assert set(reasons(result)) == {"README", "e.tif", "f.HEIC"}
    assert set(reasons(result).values()) == {RejectReason.NOT_AN_IMAGE}
    assert result.num_other_files == 9
    listed = coco(tmp_path / ".i.json", [".cache/c.png"])
    annotated = scan(ImageSource(str(tmp_path), listed))
    assert paths(annotated) == [".cache/c.png"]  # an annotation file may list a hidden file
    for name in ("a.png", "d.dat", "e.tif", "f.HEIC", "README"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"none of the 10 files .* is a readable image; give"):
        scan(tmp_path)


def test_hidden_paths():
    assert all(map(is_hidden, (".a.png", "a/.b.png", ".a/b.png")))
    assert not any(map(is_hidden, ("a.png", "a.b/c.d.png", ".")))


def test_the_state_of_sources_tells_changes(tmp_path):
    put(tmp_path / "images", a_png=picture(1))
    path = coco(tmp_path / "i.json", ["a.png"])
    source = ImageSource(str(tmp_path / "images"), path)
    seen = [sources_state([source])]
    assert sources_state([source]) == seen[0]

    put(tmp_path / "images", b_png=picture(2))
    seen.append(sources_state([source]))
    put(tmp_path / "images", b_png=picture(3, 9, 9))
    seen.append(sources_state([source]))
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "c.png")
    seen.append(sources_state([source]))
    coco(tmp_path / "i.json", ["a.png", "c.png"])
    seen.append(sources_state([source]))
    seen.append(sources_state([ImageSource(source.images, path, split="val")]))
    assert len(set(seen)) == len(seen)

    for missing in (ImageSource(str(tmp_path / "no")), ImageSource(source.images, "no.json")):
        with pytest.raises(InputError):
            sources_state([missing])


def test_a_deep_folder_is_listed_without_recursion(tmp_path):
    folder = tmp_path
    for _ in range(300):
        folder /= "d"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(picture(1))
    assert len(list_images(str(tmp_path)).entries) == 1


def test_progress_ends_at_the_last_file(tmp_path):
    put(tmp_path, **{f"m{index}_png": picture(index) for index in range(5)})
    progress = []
    scan(tmp_path, log=progress.append)
    assert progress == ["read 5 of 5 files"]
