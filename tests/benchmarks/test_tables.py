"""Benchmarks' plumbing: tables land between their marks, and timings keep the alternatives apart."""

import numpy as np
import pytest

from benchmarks.published_ncut import published_eigenpair
from benchmarks.tables import Table, publish
from benchmarks.timing import Timing, spelled, time_each

PAGE = """# Page
<!-- bench: one -->
old
<!-- end: one -->
between
<!-- bench: two -->
<!-- end: two -->
"""


def test_a_table_as_markdown():
    table = Table("What.", ["name", "time"], [["a", "1 s"], ["b", "2 s"]])

    assert table.markdown() == "What.\n\n| name | time |\n| --- | --- |\n| a | 1 s |\n| b | 2 s |"


def test_publishing_replaces_only_its_own_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)

    (tmp_path / "another.md").write_text("no marks")

    publish("one", r"new \1", tmp_path)
    publish("two", "second", tmp_path)

    assert page.read_text() == PAGE.replace("old", r"new \1").replace(
        "<!-- bench: two -->\n", "<!-- bench: two -->\nsecond\n"
    )


def test_a_page_without_the_marks_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)

    with pytest.raises(ValueError, match="needs the marks <!-- bench: three -->"):
        publish("three", "text", tmp_path)


def test_alternatives_are_called_in_turns():
    calls = []

    timings = time_each({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)

    assert calls == ["a", "b", "a", "b", "a", "b"]  # the first round warms up
    assert [len(timing.seconds) for timing in timings.values()] == [2, 2]


def test_the_median_is_reported():
    assert Timing((3.0, 1.0, 2.0)).median == 2.0
    assert Timing((3.0, 1.0, 2.0)).fastest == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.345, "12.3 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 us")]
)
def test_durations_are_spelled_with_their_unit(seconds, text):
    assert spelled(seconds) == text


def test_the_plain_reference_cuts_two_blocks_analytically():
    keys = np.repeat(np.eye(2, dtype=np.float32), [5, 3], axis=0)
    eps = 1e-5
    degree_a, degree_b = 5 + 3 * eps, 3 + 5 * eps

    value, vector = published_eigenpair(keys, np.zeros(8, bool), eps=eps)

    np.testing.assert_allclose(value, 3 * eps / degree_a + 5 * eps / degree_b, rtol=1e-6)
    np.testing.assert_allclose(vector[0] / vector[-1], -(3 * degree_b) / (5 * degree_a), rtol=1e-6)
