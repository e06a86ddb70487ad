"""The report page and the terminal table: complete, self-contained, escaped, bounded."""

import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from segmodels.pictures.cluster_crops import ClusterCrops, largest_clusters
from segmodels.report.inputs import NamedCluster, Panel, PictureRow, ReportInputs
from segmodels.report.metrics_table import metrics_table
from segmodels.report.page import render_report, write_report

EVIL = "<script>alert('&')</script> $title"


def scores(value):
    instance = dict.fromkeys(("AP", "AP50", "AP75", "AR100"), value)
    return {
        "box": instance,
        "mask": instance,
        "semantic": {"PixelAcc": value, "mIoU": value, "unmapped_pixels": 0.0},
        "panoptic": {"all": {"PQ": value, "SQ": value, "RQ": value, "classes": 3}},
        "clusters": {"things_named": 4, "stuff_named": 2},
    }


METRICS = {
    "images": {"predicted": 12, "scored": 12, "disjoint_mapping": 5, "disjoint_scored": 7},
    "class_agnostic": {kind: scores(22.75)[kind] for kind in ("box", "mask")},
    "protocols": {"u2seg-paper": {"same": scores(31.25), "disjoint": scores(11.5)}},
    "not_computed": {"stuff": EVIL},
    "statistics": {"images": 12, "thing_entropy_bits": 3.5},
}


class Tags(HTMLParser):
    """Collects tags and checks that they close in order."""

    VOID = frozenset({"meta", "img", "line", "polygon", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.names = [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def full_inputs(rows=2, clusters=3):
    classes = [
        {
            "protocol": "u2seg-paper", "fitted_on": fitted_on, "kind": "thing", "class_id": 1,
            "class_name": EVIL, "truths": 9, "clusters": 2, "box_AP": 4.0, "mask_AP": 3.0,
            "IoU": None, "PQ": 2.0, "SQ": 60.0, "RQ": 3.0,
        }
        for fitted_on in ("same", "disjoint")
    ]  # fmt: skip
    legend = [(np.array([1, 2, 3], dtype=np.uint8), EVIL)]
    row = PictureRow(EVIL, [Panel("Image", noise(90, 70)), Panel(EVIL, noise(90, 70, 1), legend)])
    crops = ClusterCrops(7, 40, [noise(30, 30, seed) for seed in range(6)])
    return ReportInputs(
        title=EVIL,
        summary=EVIL,
        metrics=METRICS,
        per_class=pa.Table.from_pylist(classes),
        settings={EVIL: EVIL},
        thing_counts=np.array([5, 0, 120, 3]),
        clusters=[NamedCluster(crops, EVIL if n else None) for n in range(clusters)],
        comparisons=[row] * rows,
        examples=[row],
    )


def test_page_is_self_contained_well_formed_and_escaped(tmp_path):
    write_report(tmp_path / "report.html", full_inputs())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "url(" not in page
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt; $title") >= 8
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.names.count("img") == 3 * 6 + 3 * 2
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_page_states_how_clusters_were_named():
    page = render_report(full_inputs())
    for text in (
        "31.2",
        "11.5",
        "22.8",
        "fitted on 5 images",
        "scored on the other 7",
        "Not computed",
    ):
        assert text in page


def test_many_pictures_stay_below_the_limit():
    inputs = full_inputs(rows=0, clusters=200)
    big = PictureRow("", [Panel("a", noise(400, 400, seed)) for seed in range(2)])
    page = render_report(
        ReportInputs(**{**inputs.__dict__, "comparisons": [big] * 6, "examples": ()})
    )
    assert len(page) < 6_000_000


def test_page_without_ground_truth_says_so():
    metrics = {
        "images": {"predicted": 3},
        "not_computed": {"all scores": "there is no ground truth"},
        "statistics": {"images": 3, "predictions": 1234},
    }
    page = render_report(ReportInputs("t", "s", metrics))
    assert "No scores" in page
    assert "there is no ground truth" in page
    assert "1,234" in page
    text = metrics_table(metrics)
    assert "Not computed: all scores: there is no ground truth" in text
    assert "1,234" in text


def test_terminal_table_is_aligned():
    lines = metrics_table(METRICS).splitlines()
    head = next(line for line in lines if line.strip().startswith("protocol"))
    rows = [line for line in lines if line.strip().startswith("u2seg-paper")]
    assert [len(row) for row in rows] == [len(head)] * 2
    assert rows[0].split()[-1] == "31.2"
    assert "other images" in rows[1]


@pytest.fixture
def members():
    rows = [(5, 3, (2, 2, 10, 10), 0.5), (5, 1, (2, 2, 10, 10), 0.5), (2, 2, (5, 5, 20, 8), 0.1)]
    rows += [(2, 1, (0, 0, 4, 4), score) for score in (0.8, 0.9, 0.7)]
    names = ("cluster_id", "image_id", "bbox", "score")
    return pa.table(
        {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    )


def test_largest_clusters_come_first_and_prefer_different_images(members):
    reads = []

    def read(image_id):
        reads.append(image_id)
        return noise(40, 50, image_id)

    masks = []

    def read_mask(row):
        masks.append(row)
        return np.ones((40, 50), dtype=bool)

    clusters = largest_clusters(members, read, read_mask, num_clusters=2, crops_per_cluster=3)
    assert [(cluster.cluster_id, cluster.size) for cluster in clusters] == [(2, 4), (5, 2)]
    assert [len(cluster.pictures) for cluster in clusters] == [3, 2]
    # Best of image 1, then image 2, and only then the next of image 1.
    assert [picture.shape[0] for picture in clusters[0].pictures] == [9, 23, 9]
    assert sorted(reads) == [1, 2, 3]
    assert sorted(masks) == [0, 1, 2, 3, 4]
