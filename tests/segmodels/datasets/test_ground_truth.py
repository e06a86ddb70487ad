"""Ground truth from either kind of file, alone, together and grouped."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from kernels import rle
from segmodels.datasets.ground_truth import load_ground_truth
from segmodels.datasets.image_source import ImageSource
from segmodels.datasets.label_map import load_label_map
from segmodels.datasets.scan import scan_sources
from segmodels.formats.coco import write_instances
from segmodels.formats.coco_json import Category
from segmodels.formats.errors import InputError
from segmodels.formats.masks import mask_row, mask_table
from segmodels.formats.panoptic import PanopticWriter, Segment

THINGS = [Category(1, "person"), Category(2, "bicycle")]
# Two kinds of wall, one of sky, as COCO panoptic numbers them.
STUFF = [Category(number, f"stuff{number}", isthing=False) for number in (171, 175, 187)]
# A person, a crowd of bicycles, two kinds of wall, sky, void at the right.
MAP = np.array(
    [
        [10, 10, 30, 30, 50, 0],
        [10, 10, 40, 40, 50, 0],
        [20, 20, 40, 40, 50, 0],
    ]
)
SEGMENTS = [
    Segment(10, 1),
    Segment(20, 2, iscrowd=1),
    Segment(30, 171),
    Segment(40, 175),
    Segment(50, 187),
]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    for index, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (6, 3), (index, 0, 0)).save(tmp_path / "images" / name)
    rows = [
        {"image_id": image_id, "path": name, "height": 3, "width": 6}
        for image_id, name in ((1, "a.png"), (2, "b.png"))
    ]
    images = pa.Table.from_pylist(rows)
    masks = mask_table(
        mask_row(image_id, 1, MAP == 10, score=1, source="x", round=0) for image_id in (2, 2)
    )
    write_instances(tmp_path / "i.json", images, masks, THINGS, [1, 2])
    with PanopticWriter(tmp_path / "p.json", tmp_path / "p", [*THINGS, *STUFF]) as writer:
        writer.add(1, "a.png", MAP, SEGMENTS)
    return tmp_path


def load(root, *, instances=True, panoptic=True, **options):
    source = ImageSource(
        str(root / "images"),
        instances_json=str(root / "i.json") if instances else None,
        panoptic_json=str(root / "p.json") if panoptic else None,
    )
    return load_ground_truth([source], scan_sources([source]).images, **options)


def test_both_files(root):
    truth = load(root)
    assert [category.id for category in truth.thing_categories] == [1, 2]
    assert [category.id for category in truth.stuff_categories] == [171, 175, 187]
    assert truth.instance_image_ids == (1, 2)
    assert truth.panoptic_image_ids == (1,)
    # The instance file speaks for image 1, although it says that nothing is there.
    assert truth.instances(1) == []
    assert [one.category_id for one in truth.instances(2)] == [1, 2]
    np.testing.assert_array_equal(truth.panoptic(1)[0], MAP)
    assert truth.panoptic(1)[1] == SEGMENTS
    assert truth.panoptic(2) is None


def test_panoptic_alone_gives_the_instances_of_its_things(root):
    truth = load(root, instances=False)
    assert truth.instance_image_ids == (1,)
    person, crowd = truth.instances(1)
    np.testing.assert_array_equal(rle.decode([person.rle_counts], 3, 6)[0], MAP == 10)
    assert (person.category_id, person.iscrowd, person.area) == (1, False, 4)
    assert person.bbox == (0, 0, 2, 2)
    assert (crowd.category_id, crowd.iscrowd, crowd.bbox) == (2, True, (0, 2, 2, 1))


def test_instances_alone_know_no_stuff(root):
    truth = load(root, panoptic=False)
    assert truth.stuff_categories == ()
    assert truth.panoptic_image_ids == ()
    assert truth.panoptic(1) is None
    assert len(truth.instances(2)) == 2


def test_an_unknown_image_has_no_truth(root):
    truth = load(root)
    assert truth.instances(77) is None
    assert truth.panoptic(77) is None


def test_both_readings_of_grouped_stuff(root):
    coco15 = load_label_map("coco15")
    wall, sky = (coco15.category_of[stuff].id for stuff in (171, 187))
    apart = load(root, stuff_grouping="coco15")
    assert apart.stuff_categories == coco15.categories
    segment_map, segments = apart.panoptic(1)
    np.testing.assert_array_equal(segment_map, MAP)
    assert segments[2:] == [Segment(30, wall), Segment(40, wall), Segment(50, sky)]

    merged = load(root, stuff_grouping="coco15", merge_stuff_segments=True)
    segment_map, segments = merged.panoptic(1)
    np.testing.assert_array_equal(segment_map, np.where(MAP == 40, 30, MAP))
    assert segments == [*SEGMENTS[:2], Segment(30, wall), Segment(50, sky)]


def test_merging_without_groups_changes_nothing_where_classes_differ(root):
    segment_map, segments = load(root, merge_stuff_segments=True).panoptic(1)
    np.testing.assert_array_equal(segment_map, MAP)
    assert segments == SEGMENTS


def test_foreign_stuff_and_unknown_groupings_are_refused(root):
    with pytest.raises(InputError, match="must be none or coco15"):
        load(root, stuff_grouping="coco27")
    foreign = Category(300, "carpet", isthing=False)
    with PanopticWriter(root / "p.json", root / "p", [*THINGS, foreign]) as writer:
        writer.add(1, "a.png", np.full((3, 6), 5), [Segment(5, 300)])
    assert load(root).stuff_categories == (foreign,)
    with pytest.raises(InputError, match=r"stuff class 300 \('carpet'\)"):
        load(root, stuff_grouping="coco15")


def test_sources_must_agree_on_classes(root):
    second = root / "second"
    second.mkdir()
    Image.new("RGB", (6, 3), (9, 9, 9)).save(second / "c.png")
    images = pa.Table.from_pylist([{"image_id": 3, "path": "c.png", "height": 3, "width": 6}])
    write_instances(root / "j.json", images, mask_table([]), [Category(1, "dog")])
    sources = [
        ImageSource(str(root / "images"), str(root / "i.json")),
        ImageSource(str(second), str(root / "j.json")),
    ]
    table = scan_sources(sources).images
    with pytest.raises(InputError, match="category 1 is 'person' in one source and 'dog'"):
        load_ground_truth(sources, table)
    write_instances(root / "j.json", images, mask_table([]), [Category(3, "dog")])
    truth = load_ground_truth(sources, table)
    assert [category.id for category in truth.thing_categories] == [1, 2, 3]
    assert truth.instance_image_ids == (1, 2, 3)


def test_images_outside_the_table_are_left_out(root):
    source = ImageSource(str(root / "images"), str(root / "i.json"), str(root / "p.json"))
    table = scan_sources([source]).images
    truth = load_ground_truth([source], table.filter(pa.array([False, True])))
    assert (truth.instance_image_ids, truth.panoptic_image_ids) == ((2,), ())
    assert truth.panoptic(1) is None


def test_real_photographs_and_annotations(test_data):
    coco = test_data / "data" / "coco"
    source = ImageSource(
        str(coco / "images" / "train2017"),
        str(coco / "annotations" / "instances_train2017.json"),
        str(coco / "annotations" / "panoptic_train2017.json"),
    )
    scan = scan_sources([source])
    assert (scan.images.num_rows, scan.rejected.num_rows, scan.num_other_files) == (310, 0, 0)
    truth = load_ground_truth([source], scan.images, stuff_grouping="coco15")
    assert (len(truth.thing_categories), len(truth.stuff_categories)) == (80, 15)
    assert (len(truth.instance_image_ids), len(truth.panoptic_image_ids)) == (310, 100)
    instances = [one for image_id in truth.instance_image_ids for one in truth.instances(image_id)]
    assert (len(instances), sum(one.iscrowd for one in instances)) == (2716, 26)
    assert len({one.category_id for one in instances}) == 80
    segments = [
        one for image_id in truth.panoptic_image_ids[:20] for one in truth.panoptic(image_id)[1]
    ]
    known = {category.id for category in truth.thing_categories + truth.stuff_categories}
    assert {one.category_id for one in segments} <= known
