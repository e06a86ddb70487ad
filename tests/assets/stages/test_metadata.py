"""Previews: what is drawn when an image cannot be read any more."""

import pyarrow as pa
import pytest
from PIL import Image

from assets.stages.metadata import PICTURE_BYTES, image_sheet, mask_sheet
from segmodels.formats.masks import MASK_SCHEMA


@pytest.fixture
def images(tmp_path):
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "there.png")
    rows = [
        {"image_id": number, "source": str(tmp_path), "path": name, "height": 30, "width": 40}
        for number, name in enumerate(["there.png", "gone.png"])
    ]
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize(
    "sheet", [image_sheet, lambda images: mask_sheet(images, MASK_SCHEMA.empty_table())]
)
def test_an_image_that_went_away_does_not_cost_the_preview(images, sheet):
    text = sheet(images).value
    assert text.startswith("![preview](data:image/jpeg;base64,")
    assert len(text) < 2 * PICTURE_BYTES
