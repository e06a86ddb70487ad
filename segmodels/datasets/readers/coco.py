"""Images with COCO annotation files: instances, panoptic or both."""

import os
from dataclasses import replace
from pathlib import Path

from segmodels.datasets.image_source import ImageSource
from segmodels.datasets.readers import folder
from segmodels.formats.errors import InputError


def read(root: str, annotations: str) -> tuple[ImageSource, ...]:
    """Give the source of an image root and its annotation files.

    Args:
        root: One image root, see `folder.read`.
        annotations: Its instance file, its panoptic file, or both joined by ":" (";" on Windows).

    Raises:
        InputError: There are several image roots or two files of a kind, or a file cannot be read.
    """
    sources = folder.read(root)
    if len(sources) > 1:
        raise InputError(
            "annotations were given for several image folders; list the sources in the run "
            "config, each with its own annotation files"
        )
    files: dict[str, str] = {}
    for file in filter(None, annotations.split(os.pathsep)):
        kind = _kind(file)
        if kind in files:
            raise InputError(
                f"{files[kind]} and {file} are both COCO {kind.removesuffix('_json')} files; "
                "give at most one of each kind for one image folder"
            )
        files[kind] = file
    return (replace(sources[0], **files),)


def _kind(file: str) -> str:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise InputError(
            f"the annotation file {file} cannot be read ({error.strerror}); give the path of a "
            "COCO json"
        ) from error
    # Only panoptic files have this key, and a search is faster than parsing.
    return "panoptic_json" if b'"segments_info"' in content else "instances_json"
