"""Categories of the pseudo-label folder."""

import json
from pathlib import Path

import pytest

from segmodels.detector.pseudo_labels import cluster_categories, count_categories
from segmodels.formats.panoptic import PanopticWriter


def test_things_come_first_and_stuff_counts_on() -> None:
    categories = cluster_categories(2, 1)
    assert [(c.id, c.name, c.isthing) for c in categories] == [
        (1, "cluster_0001", True),
        (2, "cluster_0002", True),
        (3, "stuff_0001", False),
    ]


def test_what_the_writer_lists_is_what_the_detector_counts(tmp_path: Path) -> None:
    json_path = tmp_path / "panoptic.json"
    PanopticWriter(json_path, tmp_path / "panoptic", cluster_categories(1100, 27)).close()
    assert count_categories(tmp_path) == (1100, 27)


def test_counts_come_from_the_categories(shapes, tmp_path: Path) -> None:
    assert count_categories(shapes.labels) == (2, 2)
    with pytest.raises(ValueError, match="not a pseudo-label folder"):
        count_categories(tmp_path)
    categories = [{"id": k, "isthing": 0} for k in range(1, 256)]
    (tmp_path / "panoptic.json").write_text(json.dumps({"categories": categories}))
    with pytest.raises(ValueError, match="at most 254 stuff clusters"):
        count_categories(tmp_path)
