"""Image folders and COCO files as users have them, made small for tests of the input."""

import io
import json

import numpy as np
from PIL import Image

from segmodels.datasets.image_source import ImageSource
from segmodels.datasets.scan import scan_sources


def picture(seed, height=6, width=8):
    """A file content of its own for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def put(root, **files):
    """Write contents under names in which "__" is a slash and the last "_" the dot."""
    for name, content in files.items():
        path = root / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def coco(path, names, *, height=6, width=8, first_id=1, **extra):
    images = [
        {"id": first_id + index, "file_name": name, "height": height, "width": width}
        for index, name in enumerate(names)
    ]
    categories = [{"id": 1, "name": "cat", "isthing": 1}]
    document = {"images": images, "annotations": [], "categories": categories} | extra
    path.write_text(json.dumps(document))
    return str(path)


def scan(*sources, **options):
    chosen = [one if isinstance(one, ImageSource) else ImageSource(str(one)) for one in sources]
    return scan_sources(chosen, **options)


def paths(result):
    return result.images["path"].to_pylist()


def reasons(result):
    return dict(
        zip(result.rejected["path"].to_pylist(), result.rejected["reason"].to_pylist(), strict=True)
    )
