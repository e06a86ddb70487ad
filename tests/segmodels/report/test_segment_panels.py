"""Panels of named segments: legend by area, grey for what has no class."""

import numpy as np

from segmodels.pictures.palette import UNNAMED, stuff_colour, thing_colour
from segmodels.report.segment_panels import MOST_ENTRIES, Label, segment_panel

IMAGE = np.full((20, 20, 3), 128, dtype=np.uint8)


def test_legend_names_classes_once_by_area():
    segments = np.zeros((20, 20), dtype=np.int32)
    segments[:4], segments[4:8], segments[8:15], segments[15:18] = 1, 2, 3, 4
    cat, sky = Label(5, "cat", is_thing=True), Label(9, "sky", is_thing=False)
    labels = {1: cat, 2: cat, 3: sky, 4: Label(UNNAMED, "no class", is_thing=True), 99: sky}
    panel = segment_panel("prediction", IMAGE, segments, labels)
    assert [name for _, name in panel.legend] == ["cat", "sky", "no class"]
    assert (panel.legend[0][0] == thing_colour(5)).all()
    assert (panel.legend[1][0] == stuff_colour(9)).all()
    assert np.ptp(panel.legend[2][0]) == 0
    assert (panel.picture[19] == IMAGE[19]).all()


def test_legend_is_bounded():
    segments = np.arange(400).reshape(20, 20) // 20
    labels = {n: Label(n, f"class {n}", is_thing=True) for n in range(1, 20)}
    assert len(segment_panel("", IMAGE, segments, labels).legend) == MOST_ENTRIES
