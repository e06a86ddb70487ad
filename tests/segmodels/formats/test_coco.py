"""COCO instance and result files, with pycocotools as the judge."""

import copy
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from kernels import rle
from segmodels.datasets.images import IMAGES_SCHEMA
from segmodels.formats.coco import Result, read_instances, write_instances, write_results
from segmodels.formats.coco_json import Category
from segmodels.formats.errors import AnnotationError, InputError
from segmodels.formats.masks import mask_row, mask_table
from segmodels.formats.segmentations import segmentation_counts, segmentation_fault

HEIGHT, WIDTH = 9, 12
MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 4), st.just(HEIGHT), st.just(WIDTH)))
CATEGORIES = [Category(1, "cluster_0001"), Category(7, "cluster_0007")]


def images_table(*image_ids, height=HEIGHT, width=WIDTH):
    rows = [
        {
            "image_id": image_id,
            "source": "/photographs",
            "path": f"a/{image_id}.jpg",
            "height": height,
            "width": width,
            "sha256": f"{image_id:064x}",
            "split": "train",
            "shard": 0,
        }
        for image_id in image_ids
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)


def masks_of(image_id, masks):
    return mask_table(
        mask_row(image_id, index, mask, score=1, source="x", round=0)
        for index, mask in enumerate(masks)
    )


DOCUMENT = {
    "images": [
        {"id": 0, "file_name": "./a//one.jpg", "height": 10, "width": 8},
        {"id": 5, "file_name": "two.jpg", "height": 4, "width": 4},
    ],
    "annotations": [
        {
            "id": 11,
            "image_id": 0,
            "category_id": 3,
            "iscrowd": 0,
            "area": 11.5,
            "bbox": [2.0, 1.0, 4.0, 3.0],
            "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4], [0, 8, 2, 8, 2, 10, 0, 10], [1, 1, 2, 2]],
        },
        {
            "id": 12,
            "image_id": 5,
            "category_id": 3,
            "iscrowd": 1,
            "segmentation": {"size": [4, 4], "counts": [4, 4, 8]},
        },
    ],
    "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}],
}


def written(tmp_path, document=DOCUMENT, name="instances.json"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@given(masks=MASKS)
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_read_by_pycocotools_and_by_us(tmp_path_factory, masks):
    path = tmp_path_factory.mktemp("coco") / "instances.json"
    classes = [1 if index % 2 else 7 for index in range(len(masks))]

    write_instances(path, images_table(40, 41), masks_of(41, masks), CATEGORIES, classes)

    coco = COCO(path)
    assert sorted(coco.getImgIds()) == [40, 41]
    assert coco.loadImgs(41)[0]["file_name"] == "a/41.jpg"
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[41]))
    assert [entry["id"] for entry in annotations] == list(range(1, len(masks) + 1))
    assert [entry["category_id"] for entry in annotations] == classes
    for entry, mask in zip(annotations, masks, strict=True):
        np.testing.assert_array_equal(coco.annToMask(entry).astype(bool), mask)
        assert entry["area"] == mask.sum()
        assert entry["iscrowd"] == 0
    ours = read_instances(path)
    assert ours.instances(40) == []
    assert sum(len(ours.instances(image)) for image in ours.images) == len(masks)
    back = rle.decode([one.rle_counts for one in ours.instances(41)], HEIGHT, WIDTH)
    np.testing.assert_array_equal(back, masks)
    assert list(ours.categories.values()) == CATEGORIES


def test_the_same_masks_give_the_same_bytes(tmp_path):
    masks = masks_of(1, np.ones((2, HEIGHT, WIDTH), dtype=bool))
    parts = pa.concat_tables([masks.slice(0, 1), masks.slice(1)])
    one = [Category(1, "fg")]
    write_instances(tmp_path / "a.json", images_table(1), masks, one)
    write_instances(tmp_path / "b.json", images_table(1), parts, one)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_classes_come_from_the_column_or_from_the_only_category(tmp_path):
    path = tmp_path / "instances.json"
    masks = masks_of(1, np.ones((2, HEIGHT, WIDTH), dtype=bool))

    write_instances(path, images_table(1), masks, [Category(1, "fg")])
    assert [one.category_id for one in read_instances(path).instances(1)] == [1, 1]

    classed = masks.append_column("category_id", pa.array([7, 1], pa.int32()))
    write_instances(path, images_table(1), classed, CATEGORIES)
    assert [one.category_id for one in read_instances(path).instances(1)] == [7, 1]

    with pytest.raises(ValueError, match="category_ids must be given"):
        write_instances(path, images_table(1), masks, CATEGORIES)
    with pytest.raises(ValueError, match="category 9 of mask 0"):
        write_instances(path, images_table(1), masks, CATEGORIES, [9, 1])


def test_a_failed_write_leaves_the_former_file(tmp_path):
    path = tmp_path / "instances.json"
    masks = masks_of(1, np.ones((1, HEIGHT, WIDTH), dtype=bool))
    write_instances(path, images_table(1), masks, [Category(1, "fg")])
    before = path.read_bytes()
    for images in (images_table(2), images_table(1, height=5)):
        with pytest.raises(ValueError, match="fits no image"):
            write_instances(path, images, masks, [Category(1, "fg")])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_set_of_masks_is_a_valid_file(tmp_path):
    path = tmp_path / "instances.json"
    write_instances(path, images_table(1), mask_table([]), [Category(1, "fg")])
    assert COCO(path).getAnnIds() == []
    assert read_instances(path).instances(1) == []


def test_polygons_and_crowds_are_read_as_pycocotools_reads_them(tmp_path):
    path = written(tmp_path)
    found = read_instances(path)
    (one,), (crowd,) = found.instances(0), found.instances(5)

    coco = COCO(path)
    # The two-point polygon covers nothing; pycocotools alone would trip over it.
    whole = dict(coco.loadAnns(11)[0])
    whole["segmentation"] = whole["segmentation"][:2]
    mask = rle.decode([one.rle_counts], 10, 8)[0]
    np.testing.assert_array_equal(mask, coco.annToMask(whole).astype(bool))
    # By hand: the rectangle is columns 2..5, rows 1..3; the square columns 0..1, rows 8..9.
    expected = np.zeros((10, 8), dtype=bool)
    expected[1:4, 2:6] = True
    expected[8:10, 0:2] = True
    np.testing.assert_array_equal(mask, expected)
    assert (one.area, one.bbox, one.iscrowd) == (11.5, (2, 1, 4, 3), False)
    assert found.images[0].file_name == "a/one.jpg"

    column = np.zeros((4, 4), dtype=bool)
    column[:, 1] = True
    np.testing.assert_array_equal(rle.decode([crowd.rle_counts], 4, 4)[0], column)
    assert (crowd.area, crowd.bbox, crowd.iscrowd) == (4, (1, 0, 1, 4), True)


def edited(change):
    document = copy.deepcopy(DOCUMENT)
    change(document)
    return document


FAULTS = {
    "text": ("{", "not valid JSON"),
    "a list": ("[]", "not a COCO instances file"),
    "no images": ('{"annotations": [], "categories": []}', "not a COCO instances file"),
    "a broken image id": (lambda d: d["images"][0].update(id=1.5), "must be text or an integer"),
    "no height": (lambda d: d["images"][0].pop("height"), "height of image 0"),
    "a width of 0": (lambda d: d["images"][0].update(width=0), "width of image 0"),
    "two images of one id": (lambda d: d["images"][0].update(id=5), "two images with the id 5"),
    "one file twice": (lambda d: d["images"][0].update(file_name="two.jpg"), "one image entry"),
    "two categories": (lambda d: d["categories"].append(d["categories"][0]), "two categories"),
    "two annotations": (lambda d: d["annotations"][0].update(id=12), "two annotations with the id"),
    "a foreign image": (
        lambda d: d["annotations"][0].update(image_id=8),
        "annotation 11 is of image 8, which the file does not list",
    ),
    "a foreign class": (
        lambda d: d["annotations"][0].update(category_id=4),
        "annotation 11 is of category 4, which",
    ),
    "a crowd of 2": (lambda d: d["annotations"][0].update(iscrowd=2), "iscrowd of annotation 11"),
    "a box of 3": (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "bbox of annotation 11"),
    "boxes only": (lambda d: d["annotations"][0].pop("segmentation"), "boxes are not enough"),
    "no polygon": (lambda d: d["annotations"][0].update(segmentation=[]), "empty list of polygons"),
    "odd polygon": (
        lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        "not a flat list",
    ),
    "nested polygon": (
        lambda d: d["annotations"][0].update(segmentation=[[[1, 2], [3, 4]]]),
        "not a number",
    ),
    "far polygon": (
        lambda d: d["annotations"][0].update(segmentation=[[0, 0, 1e9, 0, 5, 5]]),
        "far outside",
    ),
    "nan polygon": (
        lambda d: d["annotations"][0].update(segmentation=[[0, 0, float("nan"), 0, 5, 5]]),
        "far outside",
    ),
    "a transposed mask": (
        lambda d: d["annotations"][0].update(segmentation={"size": [8, 10], "counts": [80]}),
        "mask of size",
    ),
    "short counts": (
        lambda d: d["annotations"][1]["segmentation"].update(counts=[4, 4]),
        "do not cover",
    ),
    "broken code": (
        lambda d: d["annotations"][1]["segmentation"].update(counts="\x7fP"),
        "do not cover",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_contradiction_is_one_sentence(tmp_path, name):
    change, message = FAULTS[name]
    path = written(tmp_path, change if isinstance(change, str) else edited(change))
    with pytest.raises(AnnotationError, match=message) as caught:
        read_instances(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg", "a\0.jpg", ".."]
)
def test_a_file_name_may_not_leave_the_image_root(tmp_path, name):
    path = written(tmp_path, edited(lambda d: d["images"][0].update(file_name=name)))
    with pytest.raises(InputError, match="does not lie within the image root"):
        read_instances(path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json cannot be read"):
        read_instances(tmp_path / "absent.json")


@given(mask=hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
@settings(max_examples=30, deadline=None)
def test_every_true_code_passes_the_check_and_a_cut_one_does_not(mask):
    code = rle.encode(mask[None])[0].decode()
    height, width = mask.shape
    assert segmentation_fault({"size": [height, width], "counts": code}, height, width) == ""
    assert segmentation_fault({"size": [height, width], "counts": code[:-1]}, height, width)
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    plain = {"size": [height, width], "counts": runs}
    assert segmentation_fault(plain, height, width) == ""
    assert segmentation_counts(plain, height, width) == code.encode()


def test_results_load_into_pycocotools(tmp_path):
    truth, results = tmp_path / "instances.json", tmp_path / "results.json"
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[2:5, 3:9] = True
    write_instances(truth, images_table(1), masks_of(1, [mask]), [Category(1, "fg")])
    counts = rle.encode(mask[None])[0]
    rows = [
        Result(1, 1, 0.25, counts, HEIGHT, WIDTH),
        Result(1, 1, np.float32(0.5), counts, HEIGHT, WIDTH, bbox=(3.5, 2, 5, 3)),
    ]

    write_results(results, rows)

    loaded = json.loads(results.read_text())
    assert isinstance(loaded, list)
    assert loaded[0]["bbox"] == [3, 2, 6, 3]
    assert (loaded[1]["bbox"], loaded[1]["score"]) == ([3.5, 2, 5, 3], 0.5)
    assert coco_mask.area(loaded[0]["segmentation"]) == 18
    assert len(COCO(truth).loadRes(str(results)).getAnnIds()) == 2
    write_results(results, [])
    assert json.loads(results.read_text()) == []
