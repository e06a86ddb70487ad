"""COCO panoptic files: colours, records and their agreement."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segmodels.formats.coco_json import Category
from segmodels.formats.errors import AnnotationError, InputError
from segmodels.formats.panoptic import PanopticWriter, Segment, read_panoptic, segments_info
from segmodels.formats.segment_png import MAX_SEGMENT_ID, id_to_rgb, rgb_to_id

CATEGORIES = [Category(1, "cluster_0001"), Category(2, "stuff_0001", isthing=False)]
# Ids that need one, two and three bytes.
IDS = st.sampled_from([0, 1, 255, 256, 65_535, 65_536, MAX_SEGMENT_ID])
MAPS = hnp.arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=IDS)


def segments_of(segment_map):
    return [
        Segment(int(value), 1 + int(value) % 2) for value in np.unique(segment_map) if value != 0
    ]


def write_one(folder, segment_map, segments, image_id=7):
    with PanopticWriter(folder / "p.json", folder / "p", CATEGORIES) as writer:
        writer.add(image_id, "a/seven.jpg", segment_map, segments)
    return folder / "p.json"


def test_colours_by_hand():
    ids = np.array([[0, 1, 256, 65_536, 0x030201]])
    expected = [[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3]]]
    np.testing.assert_array_equal(id_to_rgb(ids), expected)
    with pytest.raises(ValueError, match="segment ids must be in"):
        id_to_rgb(np.array([[MAX_SEGMENT_ID + 1]]))
    with pytest.raises(ValueError, match="segment ids must be in"):
        id_to_rgb(np.array([[-1]]))


@given(segment_map=MAPS)
@settings(max_examples=30, deadline=None)
def test_maps_come_back_and_records_fit_them(tmp_path_factory, segment_map):
    folder = tmp_path_factory.mktemp("panoptic")
    segments = segments_of(segment_map)

    path = write_one(folder, segment_map, segments)

    found = read_panoptic(path)
    found.validate()
    assert found.image_ids == (7,)
    np.testing.assert_array_equal(found.segment_map(7), segment_map)
    assert found.segments(7) == segments
    assert list(found.categories.values()) == CATEGORIES
    np.testing.assert_array_equal(rgb_to_id(id_to_rgb(segment_map)), segment_map)
    document = json.loads(path.read_text())
    (annotation,) = document["annotations"]
    assert annotation["file_name"] == "000000000007.png"
    assert document["images"][0]["file_name"] == "a/seven.jpg"
    for info in annotation["segments_info"]:
        ys, xs = np.nonzero(segment_map == info["id"])
        x, y, width, height = info["bbox"]
        assert info["area"] == len(ys)
        assert (x, y, x + width - 1, y + height - 1) == (xs.min(), ys.min(), xs.max(), ys.max())


def test_the_order_of_adding_does_not_show(tmp_path):
    maps = {image_id: np.full((3, 4), image_id, dtype=np.int32) for image_id in (5, 3, 9)}
    for name, order in {"a": [5, 3, 9], "b": [9, 5, 3]}.items():
        with PanopticWriter(tmp_path / f"{name}.json", tmp_path / name, CATEGORIES) as writer:
            for image_id in order:
                writer.add(image_id, f"{image_id}.jpg", maps[image_id], [Segment(image_id, 1)])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert read_panoptic(tmp_path / "a.json").image_ids == (3, 5, 9)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([Segment(1, 1)], "pixels of id 2 have no segment"),
        ([Segment(1, 1), Segment(2, 2), Segment(3, 1)], "segment 3 has no pixels"),
        ([Segment(1, 1), Segment(1, 2), Segment(2, 1)], "listed twice"),
        ([Segment(1, 1), Segment(2, 5)], "category 5, not listed"),
    ],
)
def test_the_writer_refuses_segments_that_do_not_fit(tmp_path, segments, message):
    with pytest.raises(ValueError, match=message):
        write_one(tmp_path, np.array([[0, 1, 2]]), segments)
    assert list(tmp_path.iterdir()) == []


def test_an_image_is_added_once(tmp_path):
    writer = PanopticWriter(tmp_path / "p.json", tmp_path / "p", CATEGORIES)
    writer.add(1, "1.jpg", np.zeros((2, 2), dtype=np.int32), [])
    with pytest.raises(ValueError, match="added before"):
        writer.add(1, "1.jpg", np.zeros((2, 2), dtype=np.int32), [])
    writer.close()
    assert read_panoptic(tmp_path / "p.json").segments(1) == []


def test_validate_names_the_first_png_that_differs(tmp_path):
    with PanopticWriter(tmp_path / "p.json", tmp_path / "p", CATEGORIES) as writer:
        for image_id in (1, 2, 3):
            writer.add(image_id, f"{image_id}.jpg", np.array([[0, 4, 9]]), segments_of([4, 9]))
    found = read_panoptic(tmp_path / "p.json")
    found.validate()

    def repaint(image_id, row):
        path = tmp_path / "p" / f"{image_id:012d}.png"
        Image.fromarray(id_to_rgb(np.array([row]))).save(path)

    repaint(3, [0, 0, 0])
    repaint(2, [5, 4, 9])
    with pytest.raises(AnnotationError, match=r"000000000002\.png .* id 5 have no segment"):
        found.validate()
    repaint(2, [0, 4, 4])
    with pytest.raises(AnnotationError, match=r"000000000002\.png .* segment 9 has no pixels"):
        found.segment_map(2)
    repaint(2, [0, 4, 9, 9])
    with pytest.raises(AnnotationError, match=r"is 4 x 1 px, but .* with 3 x 1"):
        found.segment_map(2)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "cannot be read"), (b"GIF? no", "cannot be read")]
)
def test_a_png_that_is_none(tmp_path, content, message):
    path = write_one(tmp_path, np.array([[1]]), [Segment(1, 1)])
    (tmp_path / "p" / "000000000007.png").write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        read_panoptic(path).segment_map(7)
    Image.new("L", (1, 1)).save(tmp_path / "p" / "000000000007.png")
    with pytest.raises(AnnotationError, match="must be RGB"):
        read_panoptic(path).segment_map(7)


def test_the_folder_and_its_pngs_must_be_there(tmp_path):
    path = write_one(tmp_path, np.array([[1]]), [Segment(1, 1)])
    (tmp_path / "p").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="set panoptic_folder"):
        read_panoptic(path)
    assert read_panoptic(path, tmp_path / "elsewhere").segment_map(7).tolist() == [[1]]
    (tmp_path / "elsewhere" / "000000000007.png").unlink()
    with pytest.raises(AnnotationError, match=r"1 of the 1 PNGs .* '000000000007\.png'"):
        read_panoptic(path, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(image_id=8), "image 8, which the file does not list"),
        (lambda a: a.update(file_name="../x.png"), "within the image root"),
        (lambda a: a.pop("segments_info"), "must be a list of records"),
        (lambda a: a["segments_info"][0].update(id=0), "id of a segment"),
        (lambda a: a["segments_info"][0].update(category_id=99), "is of category 99"),
    ],
)
def test_a_json_that_contradicts_itself(tmp_path, change, message):
    path = write_one(tmp_path, np.array([[1]]), [Segment(1, 1)])
    document = json.loads(path.read_text())
    change(document["annotations"][0])
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        read_panoptic(path)


def test_an_image_is_annotated_once(tmp_path):
    path = write_one(tmp_path, np.array([[1]]), [Segment(1, 1)])
    document = json.loads(path.read_text())
    document["annotations"] *= 2
    path.write_text(json.dumps(document))
    with pytest.raises(AnnotationError, match="annotates image 7 twice"):
        read_panoptic(path)


def test_ground_truth_of_coco_is_whole(test_data):
    annotations = test_data / "data" / "coco" / "annotations"
    found = read_panoptic(annotations / "panoptic_train2017.json")
    found.validate()
    segments = [one for image_id in found.image_ids for one in found.segments(image_id)]
    assert (len(found.image_ids), len(segments)) == (100, 1111)
    assert len({one.category_id for one in segments}) == 119
    # Our area and box of every segment are the ones that COCO states.
    document = json.loads((annotations / "panoptic_train2017.json").read_text())
    for annotation in document["annotations"][:10]:
        info = segments_info(found.segment_map(annotation["image_id"]))
        for stated in annotation["segments_info"]:
            ours = info[stated["id"]]
            assert (ours["area"], ours["bbox"]) == (stated["area"], stated["bbox"])
