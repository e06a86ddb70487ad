"""Categories and counts of the pseudo-label folder."""

from pathlib import Path

import pytest

from segmodels.detector.pseudo_labels import (
    cluster_categories,
    count_categories,
    write_cluster_counts,
)


def test_things_come_first_and_stuff_counts_on() -> None:
    categories = cluster_categories(2, 1)
    assert [(c.id, c.name, c.isthing) for c in categories] == [
        (1, "cluster_0001", True),
        (2, "cluster_0002", True),
        (3, "stuff_0001", False),
    ]


def test_counts_are_read_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a pseudo-label folder"):
        count_categories(tmp_path)
    write_cluster_counts(tmp_path, 1100, 27)
    assert count_categories(tmp_path) == (1100, 27)
    write_cluster_counts(tmp_path, 0, 255)
    with pytest.raises(ValueError, match="at most 254 stuff clusters"):
        count_categories(tmp_path)
