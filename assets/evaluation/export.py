"""Copies finished results out of the store."""

import shutil
from pathlib import Path

import dagster as dg

from assets.stages.store import Store
from segmodels.formats.atomic import replacing_folder

EXPORTED = ("pseudo_labels", "segmenter", "predictions", "evaluation")


def export_clustering(store: Store, clustering: str, destination: Path) -> list[str]:
    """Copy the current results of one clustering into a new folder, atomically.

    Returns:
        The names of the copied stages.

    Raises:
        dg.Failure: the folder exists, or the store has no results of the clustering.
    """
    if destination.exists():
        raise dg.Failure(f"{destination} exists already: name a folder that does not exist")
    versions = {name: store.stage(name, clustering).current() for name in EXPORTED}
    found = {name: version for name, version in versions.items() if version is not None}
    if not found:
        raise dg.Failure(
            f"dataset {store.dataset.name!r} has no results for {clustering}: run the job u2seg with "
            f"that key first"
        )
    with replacing_folder(destination, keep_existing=True) as temporary:
        for name, version in found.items():
            shutil.copytree(version.folder, temporary / name)
    return list(found)
