"""Rows of Arrow tables."""

import pyarrow as pa
import pytest

from segmodels.formats.arrow import evenly_spaced_rows


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [(0, 3, []), (2, 3, [0, 1]), (3, 3, [0, 1, 2]), (9, 3, [0, 4, 8]), (10, 4, [0, 3, 6, 9])],
)
def test_evenly_spaced_rows(rows, count, expected):
    table = pa.table({"row": pa.array(range(rows), pa.int64())})
    assert evenly_spaced_rows(table, count)["row"].to_pylist() == expected
