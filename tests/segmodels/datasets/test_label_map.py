"""Label maps are partitions."""

import pytest

from segmodels.datasets.label_map import load_label_map, read_label_map
from segmodels.formats.coco_json import Category
from segmodels.formats.errors import AnnotationError


def test_coco15_is_a_partition_of_53_classes():
    coco15 = load_label_map("coco15")
    assert len(coco15.category_of) == 53
    assert min(coco15.category_of) > 90
    assert set(coco15.category_of.values()) == set(coco15.categories)
    assert [group.id for group in coco15.categories] == list(range(201, 216))
    assert coco15.categories[10] == Category(211, "wall", isthing=False, supercategory="wall")
    assert [number for number, group in coco15.category_of.items() if group.name == "wall"] == [
        171,
        175,
        176,
        177,
        199,
    ]
    assert load_label_map("none") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no label map"),
        ('{"classes": [{"id": 1, "name": "a"}]}', "is no label map"),
        ('{"classes": [{"id": 1, "name": "a", "from": [2, 2]}]}', "maps one id to two classes"),
        (
            '{"classes": [{"id": 1, "name": "a", "from": [2]}, {"id": 1, "name": "b", "from": [3]}]}',
            "two classes of one id",
        ),
    ],
)
def test_malformed_label_maps_are_refused(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=message):
        read_label_map(path)
