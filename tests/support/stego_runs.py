"""A small STEGO training that another process can run."""

from pathlib import Path
from typing import Any

import numpy as np

from segmodels.stego.training import StegoSettings, train_stego


def stego_file(
    features: np.ndarray, neighbours: np.ndarray, settings: StegoSettings, path: Path, **run: Any
) -> None:
    """Train, and write the model to `path` and its history beside it."""
    checkpoint = path.with_suffix(".pt")
    model = train_stego(
        features, neighbours, settings, checkpoint=checkpoint, checkpoint_every=25, **run
    )
    np.save(path.with_suffix(".npy"), model.history)
    model.save(path)
