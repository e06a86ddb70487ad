"""Tables of many chunks, as joined shards are: the same files and values as of one chunk."""

import pyarrow as pa

from segmodels.formats.arrow import column_values, read_table, rows_in, write_table

ROWS = pa.table({"image_id": list(range(30)), "name": [f"n{number}" for number in range(30)]})
CHUNKED = pa.concat_tables([ROWS.slice(start, 4) for start in range(0, 30, 4)])


def test_chunks_change_no_byte(tmp_path):
    assert CHUNKED["image_id"].num_chunks == 8
    write_table(ROWS, tmp_path / "one.arrow")
    write_table(CHUNKED, tmp_path / "many.arrow")
    assert (tmp_path / "many.arrow").read_bytes() == (tmp_path / "one.arrow").read_bytes()
    assert read_table(tmp_path / "many.arrow").equals(ROWS)


def test_rows_and_values_are_those_of_one_chunk():
    assert rows_in(CHUNKED, "image_id", [3, 4, 29]).equals(rows_in(ROWS, "image_id", [3, 4, 29]))
    assert column_values(CHUNKED, "name") == column_values(ROWS, "name")
