"""Image ids as annotation files give them: numbers, and text as Cityscapes' tools write it."""

import json

import numpy as np
import pytest
from input_files import coco, paths, picture, put, scan

from segmodels.datasets.ground_truth import load_ground_truth
from segmodels.datasets.image_source import ImageSource
from segmodels.formats.coco_json import Category
from segmodels.formats.errors import AnnotationError
from segmodels.formats.image_ids import stable_image_id
from segmodels.formats.panoptic import PanopticWriter, Segment

NAME = "aachen_000000_000019"


def test_ids_in_words_join_images_instances_and_maps(tmp_path):
    put(tmp_path / "images", a_png=picture(1))
    number = stable_image_id(NAME)
    mask = {"segmentation": {"size": [6, 8], "counts": [0, 48]}, "category_id": 1}
    instances = tmp_path / "i.json"
    coco(instances, ["a.png"], annotations=[{"id": 1, "image_id": 1, **mask}])
    with PanopticWriter(tmp_path / "p.json", tmp_path / "p", [Category(1, "cat")]) as writer:
        writer.add(number, "a.png", np.full((6, 8), 5), [Segment(5, 1)])
    for path in (instances, tmp_path / "p.json"):
        document = json.loads(path.read_text())
        document["images"][0]["id"] = document["annotations"][0]["image_id"] = NAME
        path.write_text(json.dumps(document))
    source = ImageSource(
        str(tmp_path / "images"),
        str(instances),
        str(tmp_path / "p.json"),
        str(tmp_path / "p"),
    )

    table = scan(source).images

    assert (paths(scan(source)), table["image_id"].to_pylist()) == (["a.png"], [number])
    truth = load_ground_truth([source], table)
    assert [one.image_id for one in truth.instances(number)] == [number]
    assert truth.panoptic(number)[1] == [Segment(5, 1)]


@pytest.mark.parametrize("value", [2**53, 10**20, -1, 1.5, True, None, ""])
def test_an_id_that_no_table_holds_is_refused_before_any_image_is_read(tmp_path, value):
    put(tmp_path / "images", a_png=picture(1))
    path = coco(tmp_path / "i.json", ["a.png"])
    document = json.loads((tmp_path / "i.json").read_text())
    document["images"][0]["id"] = value
    (tmp_path / "i.json").write_text(json.dumps(document))
    with pytest.raises(AnnotationError, match=r"must be text or an integer in \[0, 2\^53\)"):
        scan(ImageSource(str(tmp_path / "images"), path))


def test_the_largest_id_still_numbers_masks_within_63_bits(tmp_path):
    put(tmp_path / "images", a_png=picture(1))
    path = coco(tmp_path / "i.json", ["a.png"], first_id=2**53 - 1)
    (number,) = scan(ImageSource(str(tmp_path / "images"), path)).images["image_id"].to_pylist()
    assert number * 1000 + 999 < 2**63
