"""Draw docs/images/result.png from the sample's last run: photograph, masks, prediction.

python docs/draw_result.py --clustering k0012 --images 100003 100005 100017
"""

import argparse
from pathlib import Path

import pyarrow.compute as pc
from PIL import Image

from assets.evaluation.evaluation import predicted_images, run_places, upstream_versions
from assets.stages.store import Dataset, Store
from pipelines.settings import read_settings
from segmodels.formats.arrow import read_table, rows_in
from segmodels.formats.masks import decode_masks
from segmodels.pictures.overlays import contact_sheet, overlay_masks
from segmodels.report.run_report import comparisons

# As many as a report compares.
MOST = 8
OUT = Path(__file__).parent / "images" / "result.png"


def main() -> None:
    """Draw a row an image: photograph, MaskCut masks, panoptic prediction, ground truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clustering", default="k0012")
    parser.add_argument("--images", type=int, nargs="+", required=True, help="ids of val images")
    arguments = parser.parse_args()
    if len(arguments.images) > MOST:
        parser.error(f"give at most {MOST} images")
    store = Store(root=str(read_settings().store), dataset=Dataset(name="sample"))
    upstream = upstream_versions(store, arguments.clustering)
    places = run_places(upstream, rows_in(predicted_images(store), "image_id", arguments.images))
    evaluation = store.stage("evaluation", arguments.clustering).require()
    tiles, captions = [], []
    for image_id, row in zip(
        places.images["image_id"].to_pylist(),
        comparisons(places, read_table(evaluation.folder / "mapping.arrow")),
        strict=True,
    ):
        photograph, *others = row.panels
        own = places.discovered.filter(pc.equal(places.discovered["image_id"], image_id))
        tiles += [photograph.picture, overlay_masks(photograph.picture, decode_masks(own))]
        tiles += [panel.picture for panel in others]
        captions += ["photograph", "masks found by normalized cuts"]
        captions += ["panoptic prediction", "ground truth"]
    Image.fromarray(contact_sheet(tiles, captions, columns=4, tile=200)).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
