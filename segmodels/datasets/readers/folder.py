"""Images without annotations: folders of any depth, .tar files, or folders of .tar files."""

import os

from segmodels.datasets.image_source import ImageSource
from segmodels.formats.errors import InputError


def read(root: str) -> tuple[ImageSource, ...]:
    """Give one source for each path of `root`.

    Args:
        root: One image root, or several joined by ":" (";" on Windows).

    Raises:
        InputError: `root` names no path.
    """
    roots = [path for path in root.split(os.pathsep) if path]
    if not roots:
        raise InputError("no images are named; give the path of a folder of images or a .tar")
    return tuple(map(ImageSource, roots))
