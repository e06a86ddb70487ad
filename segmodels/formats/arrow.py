"""Arrow tables as files: written atomically, equal bytes for equal rows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segmodels.formats.atomic import replacing

# Fixed, so that the bytes do not depend on the chunks of the table.
ROWS_PER_BATCH = 65_536


def write_table(table: pa.Table, path: str | Path) -> None:
    """Write a table as an Arrow IPC file (.arrow), atomically and without timestamps."""
    whole = table.combine_chunks()
    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), whole.schema) as writer:
        writer.write_table(whole, max_chunksize=ROWS_PER_BATCH)


def read_table(path: str | Path) -> pa.Table:
    """Read a table written by `write_table`; its buffers are mapped, not copied.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a whole Arrow file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a whole Arrow file ({error}); write it anew") from error


def rows_in(table: pa.Table, column: str, wanted: Iterable[Any]) -> pa.Table:
    """Rows whose value in the column is among the wanted ones, in their order."""
    values = pa.array(list(wanted), type=table.schema.field(column).type)
    return table.filter(pc.is_in(table[column], values))


def evenly_spaced_rows(table: pa.Table, count: int) -> pa.Table:
    """At most `count` rows, evenly spaced over the table."""
    if table.num_rows <= count:
        return table
    return table.take(np.linspace(0, table.num_rows - 1, count).round().astype(np.int64))


def column_values(table: pa.Table, column: str) -> list[Any]:
    """A column as plain Python values."""
    return list(table[column].to_pylist())
