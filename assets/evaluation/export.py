"""Copies finished results out of the store."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import dagster as dg

from assets.stages.locks import reading
from assets.stages.shards import finished_shards, reduced_folder
from assets.stages.store import MissingStageError, Store, Version
from segmodels.formats.atomic import replacing_folder

EXPORTED = ("pseudo_labels", "segmenter", "predictions", "evaluation")


def export_clustering(store: Store, clustering: str, destination: Path) -> list[str]:
    """Copy the current results of one clustering into a new folder, atomically.

    Returns:
        The names of the copied stages.

    Raises:
        dg.Failure: the folder exists, or the store has no results of the clustering.
        DamagedResultError: a result has lost a file.
    """
    if destination.exists():
        raise dg.Failure(f"{destination} exists already: name a folder that does not exist")
    with ExitStack() as reads:
        found: dict[str, Version] = {}
        for name in EXPORTED:
            try:
                found[name] = store.stage(name, clustering).require()
            except MissingStageError:
                continue
            reads.enter_context(reading(found[name].folder))
        if not found:
            raise dg.Failure(
                f"dataset {store.dataset.name!r} has no results for {clustering}: run the job u2seg "
                "with that key first"
            )
        with replacing_folder(destination, keep_existing=True) as temporary:
            for name, version in found.items():
                shutil.copytree(_whole_folder(version), temporary / name)
    return list(found)


def _whole_folder(version: Version) -> Path:
    """The folder that holds a result, that over all shards where it has shards."""
    if "shards" not in version.summary:
        return version.folder
    finished_shards(version)  # verified, as the folder links to their files
    return reduced_folder(version)
