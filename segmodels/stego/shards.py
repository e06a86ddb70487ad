"""Shards of the stages stuff_features and stuff_segments: STEGO's input and output."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr

from segmodels.backbones.ref import BackboneRef
from segmodels.engine.parallel import map_images
from segmodels.engine.progress import Log, Progress
from segmodels.formats.arrow import write_table
from segmodels.formats.decode import read_image
from segmodels.formats.stuff import stuff_rows, stuff_table
from segmodels.stego.crops import NUM_VIEWS
from segmodels.stego.features import mean_features, neighbour_table, stego_features
from segmodels.stego.model import StegoModel
from segmodels.stego.segmentation import StuffScores, choose_clusters, score_stuff
from segmodels.stego.settings import SegmentationSettings, ViewSettings
from segmodels.stego.training import StegoSettings, train_stego

MODEL_FILE = "stego.safetensors"
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class StuffFeatureShard:
    """Arguments of a stuff_features shard; `images` has IMAGES_SCHEMA."""

    images: pa.Table
    settings: ViewSettings
    backbone: BackboneRef


def stuff_feature_shard(work: StuffFeatureShard, folder: Path) -> dict[str, float]:
    """Write `views.zarr`: tokens (n, views, gh, gw, d) float16 and means (n, views, d) float32."""
    backbone = work.backbone.load()
    rows = work.images.select(["source", "path"]).to_pylist()
    group = zarr.open_group(folder / "views.zarr", mode="w", zarr_format=3)
    tokens: Any = None
    means = []
    for position, row in enumerate(rows):
        views = stego_features(read_image(row["source"], row["path"]), backbone, work.settings)
        if tokens is None:
            tokens = group.create_array(
                "tokens",
                shape=(len(rows), *views.shape),
                dtype=views.dtype,
                chunks=(1, *views.shape),
                compressors=None,
            )
        tokens[position] = views
        means.append(mean_features(views))
    group.create_array("means", data=np.stack(means), compressors=None)
    group.create_array("image_id", data=work.images["image_id"].to_numpy(), compressors=None)
    return {"images": len(rows), "views": len(rows) * NUM_VIEWS}


class StoredViews:
    """The views of all shards as one lazy (n, gh, gw, d) array: `views[i]` reads one view."""

    def __init__(self, folders: list[Path]) -> None:
        self._tokens, self._means = (
            [zarr.open_array(folder / "views.zarr" / name, mode="r") for folder in folders]
            for name in ("tokens", "means")
        )
        self._starts = np.cumsum([0, *(tokens.shape[0] * NUM_VIEWS for tokens in self._tokens)])
        self.shape = (int(self._starts[-1]), *self._tokens[0].shape[2:])

    def __getitem__(self, view: int) -> np.ndarray:
        """Tokens (gh, gw, d) float16 of one view."""
        shard = int(np.searchsorted(self._starts, view, side="right")) - 1
        image, position = divmod(view - int(self._starts[shard]), NUM_VIEWS)
        return np.asarray(self._tokens[shard][image, position])

    def means(self) -> np.ndarray:
        """Descriptors (n, d) float32 of all views, L2 norm 1; see `mean_features`."""
        parts = [np.asarray(means) for means in self._means]
        return np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])


def write_neighbours(views: StoredViews, folder: Path) -> None:
    """Write the kNN table of all views, (n, k) int64, as a Zarr array."""
    zarr.create_array(folder, data=neighbour_table(views.means()), compressors=None)


def read_neighbours(folder: Path) -> np.ndarray:
    """Read the kNN table that `write_neighbours` wrote, (n, k) int64."""
    return np.asarray(zarr.open_array(folder, mode="r"))


def train_on_shards(
    shards: list[Path],
    neighbours: Path,
    folder: Path,
    settings: StegoSettings,
    *,
    device: str,
    checkpoint_every: int,
    on_progress: Progress,
    log: Log,
) -> dict[str, Any]:
    """Train STEGO on stored views; write `MODEL_FILE`, beside the last checkpoint.

    Returns:
        The number of views, and the history of the losses by name.

    Raises: see `train_stego`.
    """
    views = StoredViews(shards)
    model = train_stego(
        views,
        read_neighbours(neighbours),
        settings,
        on_progress,
        device=device,
        checkpoint=folder / CHECKPOINT,
        checkpoint_every=checkpoint_every,
        log=log,
    )
    model.save(folder / MODEL_FILE)
    names = ("step", "loss", "same", "neighbour", "random")
    history = [dict(zip(names, map(float, row), strict=True)) for row in model.history]
    return {"views": views.shape[0], "history": history}


@dataclass(frozen=True)
class StuffSegmentShard:
    """Arguments of a stuff_segments shard; `images` has IMAGES_SCHEMA."""

    images: pa.Table
    model_file: Path
    settings: SegmentationSettings
    backbone: BackboneRef


@lru_cache(maxsize=1)
def _cached_model(path: Path) -> StegoModel:
    return StegoModel.load(path)


def stuff_segment_shard(work: StuffSegmentShard, folder: Path) -> dict[str, float]:
    """Write `segments.arrow` (STUFF_SCHEMA): one row a stuff cluster of an image."""
    backbone = work.backbone.load()
    model = _cached_model(work.model_file)
    images = work.images.select(["image_id", "source", "path"]).to_pylist()

    def scored() -> Iterator[tuple[int, StuffScores]]:
        for row in images:
            image = read_image(row["source"], row["path"])
            yield row["image_id"], score_stuff(image, backbone, model, work.settings)

    def rows_of(scored_image: tuple[int, StuffScores]) -> list[dict[str, Any]]:
        image_id, scores = scored_image
        return stuff_rows(image_id, choose_clusters(scores, work.settings))

    # This thread runs the network, the others the CRF of earlier images.
    rows = [row for image_rows in map_images(rows_of, scored()) for row in image_rows]
    write_table(stuff_table(rows), folder / "segments.arrow")
    return {"images": len(images), "segments": len(rows)}
