"""Backbones by name: those in the repository, and the official ones in their cache."""

import logging
import re
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock, Timeout

from kernels.errors import ExNihiloError
from segmodels.backbones.download import Log, discard, fetch
from segmodels.backbones.file_digests import (
    WeightsMismatchError,
    check_sha256,
    file_sha256,
    record_of,
    record_sha256,
    recorded_sha256,
)
from segmodels.backbones.weights import EMBEDDED_FOLDER, WeightsFormatError, read_weights

DEFAULT_CACHE = Path("~/.cache/exnihilo")
EMBEDDED = "embedded"
# Self-distillation alone, before the keys learned to set objects off: what lies around objects has
# become all alike in the other's tokens.
EMBEDDED_DINO = "embedded_dino"
_EMBEDDED_FILES = {
    name: EMBEDDED_FOLDER / f"{name}.safetensors" for name in (EMBEDDED, EMBEDDED_DINO)
}
_FOR_STUFF = {EMBEDDED: EMBEDDED_DINO}

OFFICIAL_SITE = "https://dl.fbaipublicfiles.com"
# Paths on that site, also of a mirror's. DINO's small/8 is the 300-epoch one that MaskCut uses.
OFFICIAL = {
    "dino_vits16": "dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
    "dino_vits8": "dino/dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth",
    "dino_vitb16": "dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    "dino_vitb8": "dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
    "dinov2_vits14": "dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
    "dinov2_vitb14": "dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
    "dinov2_vitl14": "dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "dinov2_vits14_reg": "dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
    "dinov2_vitb14_reg": "dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth",
    "dinov2_vitl14_reg": "dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth",
}

_HASHED = re.compile(r"(?P<name>.+)@sha256:(?P<digest>.*)", re.DOTALL)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_logger = logging.getLogger(__name__)


NAMES = (*_EMBEDDED_FILES, *OFFICIAL)


class UnknownBackboneError(ExNihiloError, ValueError):
    """The name is neither a known backbone nor an existing file."""


class WeightsUnavailableError(ExNihiloError, RuntimeError):
    """Named weights are not on this machine and cannot be fetched."""


def locate_weights(
    name_or_path: str | Path,
    cache_folder: str | Path = DEFAULT_CACHE,
    *,
    site: str = OFFICIAL_SITE,
    log: Log = _logger.info,
) -> Path:
    """Find the file of a backbone, verified; official weights that the cache lacks are fetched.

    Args:
        name_or_path: one of NAMES, or the path of a .pth or .safetensors file; `@sha256:` and 64 hexadecimal digits after it ask for a file with this hash alone.
        cache_folder: where official weights are kept, each with its hash recorded beside it.
        site: where official weights are fetched from, for a mirror of the same paths.
        log: takes lines of a download's progress.

    Raises:
        UnknownBackboneError: neither a known name nor an existing file, or no hash after @sha256:.
        WeightsUnavailableError: official weights are missing and the download failed.
        WeightsMismatchError: the file is not the one that was asked for or recorded.
        WeightsFormatError: a file that was put into the cache by hand holds no weights.
    """
    name, asked = _split_hash(str(name_or_path))
    if name in OFFICIAL:
        path = _place(name, cache_folder)
        if not path.is_file():
            _download(f"{site.rstrip('/')}/{OFFICIAL[name]}", path, asked, log)
        else:
            _verify_cached(path, asked, log)
        return path
    path = _EMBEDDED_FILES.get(name) or Path(name).expanduser()
    if not path.is_file():
        raise UnknownBackboneError(
            f"unknown backbone {name!r}: give one of {', '.join(NAMES)}, or the path of an existing "
            ".pth or .safetensors file"
        )
    if asked is not None:
        check_sha256(path, file_sha256(path), asked, None)
    return path


def stuff_name(name: str) -> str:
    """The backbone whose tokens tell stuff apart, where that is not the one that finds things.

    Args:
        name: of the latter, with or without `@sha256:` and its hash.
    """
    return _FOR_STUFF.get(_split_hash(name)[0], name)


def cached_names(cache_folder: str | Path = DEFAULT_CACHE) -> list[str]:
    """List the official names whose files a cache folder holds; nothing is fetched or verified."""
    return [name for name in OFFICIAL if _place(name, cache_folder).is_file()]


def _place(name: str, cache_folder: str | Path) -> Path:
    """Where the cache keeps official weights."""
    return Path(cache_folder).expanduser() / OFFICIAL[name].rsplit("/", 1)[-1]


def _split_hash(name: str) -> tuple[str, str | None]:
    match = _HASHED.fullmatch(name)
    if match is None:
        return name, None
    digest = match["digest"].strip().lower()
    if not _SHA256.fullmatch(digest):
        raise UnknownBackboneError(
            f"after @sha256: come the 64 hexadecimal digits of the file's SHA-256, got {digest!r}"
        )
    return match["name"], digest


def _verify_cached(path: Path, asked: str | None, log: Log) -> None:
    """Check a file of the cache; one that was put there by hand must hold weights, and is noted."""
    recorded = recorded_sha256(path)
    actual = file_sha256(path)
    check_sha256(path, actual, asked, recorded)
    if recorded == actual:
        return
    read_weights(path)
    try:
        record_sha256(path, actual, "put here by hand")
    except OSError as error:
        # A team's cache may be read-only for most of its users.
        log(f"{path} cannot be verified next time, its SHA-256 {actual} was not recorded: {error}")


def _download(address: str, path: Path, asked: str | None, log: Log) -> None:
    """Fetch a file of the cache once, however many processes ask for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            log(f"another process is fetching {path.name}: waiting for it")
            held = lock.acquire()
        with held:
            if path.is_file():
                _verify_cached(path, asked, log)
            else:
                _download_alone(address, path, asked, log)
    except (OSError, HTTPException) as error:
        raise WeightsUnavailableError(
            f"could not download {address} ({error}): fetch it on a machine with network access "
            f"and put it into {path.parent} as {path.name}, or try again, what has arrived is kept"
        ) from error


def _download_alone(address: str, path: Path, asked: str | None, log: Log) -> None:
    """Fetch to a temporary name, and move into place only what holds weights and has the hash."""
    wanted = asked or recorded_sha256(path)
    partial = path.with_name(f"{path.name}.part")
    log(f"fetching {address} into {path.parent}")
    fetch(address, partial, log=log)
    try:
        read_weights(partial)
    except WeightsFormatError as error:
        discard(partial)
        raise WeightsUnavailableError(
            f"what {address} answered holds no weights, perhaps it is a proxy's page: fetch the "
            f"file by other means and put it into {path.parent} as {path.name}"
        ) from error
    actual = file_sha256(partial)
    if wanted is not None and actual != wanted:
        discard(partial)
        cure = "correct the hash after @sha256:" if asked else f"delete {record_of(path)}"
        raise WeightsMismatchError(
            f"{address} answered a file with SHA-256 {actual} instead of {wanted}, which was not "
            f"kept: if it is the right one, {cure}"
        )
    record_sha256(path, actual, address)
    partial.replace(path)
    discard(partial)
