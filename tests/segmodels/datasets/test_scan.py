"""What a scan decides: shards that only grow, and the share held out."""

from input_files import coco, paths, picture, put, reasons, scan

from segmodels.datasets.image_source import ImageSource
from segmodels.formats.errors import RejectReason


def test_shards_are_append_only(tmp_path):
    put(tmp_path, **{f"m{index}_png": picture(index) for index in range(5)})
    first = scan(tmp_path, shard_size=2)
    assert first.images["shard"].to_pylist() == [0, 0, 1, 1, 2]
    assert first.images.equals(scan(tmp_path, shard_size=2, previous=first.images).images)

    # New names sort before and between; one is a copy of a known image; one known changes.
    put(tmp_path, a_png=picture(10), b_png=picture(3), m2b_png=picture(11), m4_png=picture(12))
    (tmp_path / "m1.png").unlink()
    second = scan(tmp_path, shard_size=2, previous=first.images)

    assert list(zip(paths(second), second.images["shard"].to_pylist(), strict=True)) == [
        ("m0.png", 0),
        ("m2.png", 1),
        ("m3.png", 1),
        ("a.png", 3),
        ("m2b.png", 3),
        ("m4.png", 4),
    ]
    assert reasons(second) == {"b.png": RejectReason.DUPLICATE_CONTENT}


def test_the_shard_size_changes_nothing_else(tmp_path):
    put(tmp_path, **{f"m{index}_png": picture(index) for index in range(5)})
    one, two = (scan(tmp_path, shard_size=size).images for size in (2, 512))
    assert one.drop_columns("shard").equals(two.drop_columns("shard"))


def test_a_lower_pixel_limit_also_counts_for_known_images(tmp_path):
    put(tmp_path, a_png=picture(1), b_png=picture(2, 20, 20))
    known = scan(tmp_path).images
    result = scan(tmp_path, previous=known, max_pixels=100)
    assert reasons(result) == {"b.png": RejectReason.OVER_PIXEL_LIMIT}


def test_the_evaluation_share_follows_content(tmp_path):
    names = [f"{index:03d}.png" for index in range(200)]
    (tmp_path / "images").mkdir()
    for index, name in enumerate(names):
        (tmp_path / "images" / name).write_bytes(picture(index, 2, 2))
    path = coco(tmp_path / "i.json", names, height=2, width=2)
    source = ImageSource(str(tmp_path / "images"), path)

    def held_out(source, fraction):
        rows = scan(source, evaluation_fraction=fraction).images.to_pylist()
        return {row["sha256"] for row in rows if row["split"] == "val"}

    quarter = held_out(source, 0.25)
    assert 30 <= len(quarter) <= 70
    assert quarter < held_out(source, 0.5)
    assert held_out(source, 0.0) == set()
    # Other names and ids, same contents: same share. No ground truth: nothing to hold out.
    for name in names:
        (tmp_path / "images" / name).rename(tmp_path / "images" / f"n{name}")
    coco(tmp_path / "i.json", [f"n{name}" for name in names], height=2, width=2, first_id=900)
    assert held_out(source, 0.25) == quarter
    assert held_out(ImageSource(str(tmp_path / "images")), 0.25) == set()


def test_a_copy_among_train_images_takes_none_out_of_val(tmp_path):
    put(tmp_path / "train", copy_png=picture(1), own_png=picture(2))
    put(tmp_path / "val", a_png=picture(1))
    coco(tmp_path / "i.json", ["a.png"])
    train = ImageSource(str(tmp_path / "train"))
    val = ImageSource(str(tmp_path / "val"), str(tmp_path / "i.json"), split="val")
    for before in (None, scan(train).images):
        result = scan(train, val, previous=before)
        assert sorted(paths(result)) == ["a.png", "own.png"]
        assert reasons(result) == {"copy.png": RejectReason.DUPLICATE_CONTENT}
