"""What a finished folder holds: a lost or shortened file is an error, where Zarr would read zeros."""

from collections.abc import Callable
from pathlib import Path

from kernels.errors import ExNihiloError

MANIFEST = "manifest.txt"


class DamagedResultError(ExNihiloError, RuntimeError):
    """A finished result has lost a file or a part of one since it was written."""


def write_manifest(folder: Path) -> None:
    """List every file below a folder with its size: a line `<bytes> <path>` each, by path."""
    files = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    # A resumed version may hold the manifest of a run that was killed as it ended.
    files = [name for name in files if name != MANIFEST]
    lines = [f"{(folder / name).stat().st_size} {name}\n" for name in files]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def verify(folder: Path, stage: str) -> None:
    """Compare the files of a stage's finished folder with its manifest, by size.

    Raises:
        DamagedResultError: names the first file that is missing or has another size.
    """
    manifest = folder / MANIFEST
    try:
        lines = manifest.open(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise DamagedResultError(_sentence(manifest, "is missing", stage)) from None
    with lines:
        for line in lines:
            size, _, name = line.rstrip("\n").partition(" ")
            fault = _fault(folder / name, int(size))
            if fault is not None:
                raise DamagedResultError(_sentence(folder / name, fault, stage))


def is_finished(folder: Path, stage: str, log: Callable[[str], None]) -> bool:
    """Whether a folder is there with all its files; a fault is logged, as the stage then runs."""
    if not folder.exists():
        return False
    try:
        verify(folder, stage)
    except DamagedResultError as error:
        log(f"{error} (which this run does)")
        return False
    return True


def _fault(path: Path, size: int) -> str | None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    return None if found == size else f"has {found} bytes instead of {size}"


def _sentence(path: Path, fault: str, stage: str) -> str:
    return f"{path} {fault}: materialise {stage} again"
