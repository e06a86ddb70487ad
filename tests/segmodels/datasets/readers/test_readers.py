"""Layouts become sources."""

import os

import pytest
from input_files import coco

from segmodels.datasets.image_source import ImageSource
from segmodels.datasets.readers import READERS
from segmodels.formats.errors import InputError


def test_readers_of_folders_and_coco_files(tmp_path):
    instances = coco(tmp_path / "i.json", ["a.png"])
    panoptic = coco(
        tmp_path / "p.json", ["a.png"], annotations=[{"image_id": 1, "segments_info": []}]
    )
    other = coco(tmp_path / "other.json", ["b.png"])
    join = os.pathsep.join
    read_folder, read_coco = READERS["folder"], READERS["coco"]
    assert read_folder("x") == (ImageSource("x"),)
    assert read_folder(join(["x", "y.tar"])) == (ImageSource("x"), ImageSource("y.tar"))
    assert read_coco("x", join([panoptic, instances])) == (
        ImageSource("x", instances_json=instances, panoptic_json=panoptic),
    )
    with pytest.raises(InputError, match="are both COCO instances files"):
        read_coco("x", join([instances, other]))
    with pytest.raises(InputError, match="list the sources in the run config"):
        read_coco(join(["x", "y"]), instances)
    with pytest.raises(InputError, match="no images are named"):
        read_folder("")
    with pytest.raises(InputError, match="cannot be read"):
        read_coco("x", str(tmp_path / "absent.json"))
