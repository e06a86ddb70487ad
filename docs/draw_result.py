"""Draw docs/images/result.png from the last run on the sample: image, masks, prediction, truth.

python docs/draw_result.py --clustering k0012 --images 100003 100005 100017
"""

import argparse
from pathlib import Path

from PIL import Image

from assets.detector.predictions import predicted_images
from assets.evaluation.artifacts import run_artifacts
from assets.evaluation.evaluation import evaluation
from assets.stages.store import Dataset, Store
from pipelines.settings import read_settings
from segmodels.formats.arrow import read_table, rows_in
from segmodels.formats.masks import decode_masks
from segmodels.pictures.overlays import overlay_masks
from segmodels.pictures.sheets import contact_sheet
from segmodels.report.comparisons import SHOWN_IMAGES, comparisons

OUT = Path(__file__).parent / "images" / "result.png"


def main() -> None:
    """Draw a row per image: image, MaskCut masks, panoptic prediction, ground truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clustering", default="k0012")
    parser.add_argument("--images", type=int, nargs="+", required=True, help="ids of val images")
    arguments = parser.parse_args()
    if len(arguments.images) > SHOWN_IMAGES:
        parser.error(f"give at most {SHOWN_IMAGES} images")
    store = Store(root=str(read_settings().store), dataset=Dataset(name="sample"))
    upstream = {
        name: store.stage(name, arguments.clustering).current() or store.stage(name).require()
        for name in (key.to_user_string() for key in evaluation.dependency_keys)
    }
    shown = rows_in(predicted_images(upstream["images"]), "image_id", arguments.images)
    artifacts = run_artifacts(upstream, shown)
    scores = store.stage("evaluation", arguments.clustering).require()
    tiles, captions = [], []
    for image_id, row in zip(
        artifacts.images["image_id"].to_pylist(),
        comparisons(artifacts, read_table(scores.folder / "mapping.arrow")),
        strict=True,
    ):
        image, *others = row.panels
        own = rows_in(artifacts.discovered, "image_id", [image_id])
        tiles += [image.picture, overlay_masks(image.picture, decode_masks(own))]
        tiles += [panel.picture for panel in others]
        captions += ["image", "masks found by normalized cuts"]
        captions += ["panoptic prediction", "ground truth"]
    Image.fromarray(contact_sheet(tiles, captions, columns=4, tile=200)).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
