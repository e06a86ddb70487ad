"""Arrow tables as files: written whole or not at all, the same bytes for the same rows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segmodels.formats.atomic import replacing

# Fixed, so that the bytes do not depend on how the table was put together.
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
    """Keep the rows whose value in the column is among the wanted ones; order stays."""
    values = pa.array(list(wanted), type=table.schema.field(column).type)
    return table.filter(pc.is_in(table[column], values))


def column_values(table: pa.Table, column: str) -> list[Any]:
    """A column as plain Python values."""
    return list(table[column].to_pylist())
