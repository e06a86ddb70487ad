"""Arrow tables as files: written whole or not at all, the same bytes for the same rows."""

from pathlib import Path

import pyarrow as pa

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
