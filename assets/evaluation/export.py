"""Copies of finished results for use outside the store."""

import shutil
from pathlib import Path

import dagster as dg

from assets.stages.store import Store

EXPORTED = ("pseudo_labels", "segmenter", "predictions", "evaluation")


def export_clustering(store: Store, clustering: str, destination: Path) -> list[str]:
    """Copy the current results of one clustering into a new folder, whole or not at all.

    Returns:
        Names of the stages that were copied.

    Raises:
        dg.Failure: the folder exists, or nothing of that clustering is in the store.
    """
    if destination.exists():
        raise dg.Failure(f"{destination} exists already: name a folder that does not")
    versions = {name: store.stage(name, clustering).current() for name in EXPORTED}
    found = {name: version for name, version in versions.items() if version is not None}
    if not found:
        raise dg.Failure(
            f"dataset {store.dataset.name!r} has no results for {clustering}: run the job u2seg with "
            f"that key first"
        )
    temporary = destination.with_name(f".tmp-{destination.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, version in found.items():
        shutil.copytree(version.folder, temporary / name)
    temporary.rename(destination)
    return list(found)
