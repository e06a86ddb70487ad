"""Schemas of the tables of a data set's images and of the rejected files."""

import pyarrow as pa

# source: absolute path of a folder or .tar; path: file name relative to it, or member name, with
# forward slashes; height and width: px after EXIF rotation; split: train | val.
_IMAGES_COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.int64(),
    "source": pa.string(),
    "path": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "sha256": pa.string(),
    "split": pa.string(),
    "shard": pa.int32(),
}
IMAGES_SCHEMA = pa.schema(_IMAGES_COLUMNS)

_REJECTED_COLUMNS: dict[str, pa.DataType] = {
    "source": pa.string(),
    "path": pa.string(),
    "reason": pa.string(),
    "detail": pa.string(),
}
REJECTED_SCHEMA = pa.schema(_REJECTED_COLUMNS)
