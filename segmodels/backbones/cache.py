"""The cache of official weights: fetched once, verified at every use."""

import logging
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock, Timeout

from kernels.errors import ExNihiloError
from segmodels.backbones.download import Log, discard, fetch
from segmodels.backbones.file_digests import (
    WeightsMismatchError,
    check_file_name,
    check_sha256,
    file_sha256,
    record_of,
    record_sha256,
    recorded_sha256,
)
from segmodels.backbones.registry import (
    DEFAULT_CACHE,
    EMBEDDED_FOLDER,
    REGISTRY,
    BackboneName,
    Entry,
    Kind,
    UnknownBackboneError,
    names_of,
    wrong_network,
)
from segmodels.backbones.weights import WeightsFormatError, read_weights

_logger = logging.getLogger(__name__)


class WeightsUnavailableError(ExNihiloError, RuntimeError):
    """Named weights are not on this machine and cannot be fetched."""


def locate_weights(
    name_or_path: str | Path,
    cache_folder: str | Path = DEFAULT_CACHE,
    *,
    kind: Kind | None = None,
    site: str | None = None,
    log: Log = _logger.info,
) -> Path:
    """Find the verified file of a backbone; official weights that the cache lacks are fetched.

    Args:
        name_or_path: a key of `REGISTRY`, or the path of a .pth or .safetensors file; followed by
            `@sha256:` and 64 hexadecimal digits, only a file with this hash is accepted.
        cache_folder: where official weights are kept, each with its hash recorded beside it.
        kind: network that a known name must be for; None accepts any.
        site: a mirror to fetch official weights from; None is the publisher's.
        log: receives lines of a download's progress.

    Raises:
        UnknownBackboneError: neither a known name nor an existing file, or no hash after @sha256:.
        WrongNetworkError: the name is that of another kind of network.
        WeightsUnavailableError: official weights are missing and the download failed.
        WeightsMismatchError: the file does not have the hash that was asked for or recorded.
        WeightsFormatError: a file that was put into the cache by hand holds no weights.
    """
    asked = BackboneName.parse(name_or_path)
    entry = REGISTRY.get(asked.name)
    if entry is not None and kind not in (None, entry.kind):
        raise wrong_network(asked.name, entry.kind, kind)
    if entry is not None and entry.site:
        path = _cached_path(entry, cache_folder)
        if path.is_file():
            _verify_cached(path, asked.sha256, log)
        else:
            address = f"{(site or entry.site).rstrip('/')}/{entry.path}"
            _download(address, path, asked.sha256, log)
        return path
    path = EMBEDDED_FOLDER / entry.path if entry else Path(asked.name).expanduser()
    if not path.is_file():
        raise UnknownBackboneError(
            f"unknown backbone {asked.name!r}: give one of {', '.join(REGISTRY)}, or the path of an "
            "existing .pth or .safetensors file"
        )
    if asked.sha256 is not None:
        check_sha256(path, file_sha256(path), asked.sha256, None)
    return path


def cached_names(cache_folder: str | Path = DEFAULT_CACHE, kind: Kind = "vit") -> list[str]:
    """List the official names whose files a cache folder holds; nothing is fetched or verified."""
    official = [name for name in names_of(kind) if REGISTRY[name].site]
    return [name for name in official if _cached_path(REGISTRY[name], cache_folder).is_file()]


def _cached_path(entry: Entry, cache_folder: str | Path) -> Path:
    return Path(cache_folder).expanduser() / entry.file_name


def _verify_cached(path: Path, asked: str | None, log: Log) -> None:
    """Check a cached file's hash; a file without a record must hold weights, and is recorded."""
    recorded = recorded_sha256(path)
    actual = file_sha256(path)
    check_sha256(path, actual, asked, recorded)
    if recorded == actual:
        return
    check_file_name(path, actual)
    read_weights(path)
    try:
        record_sha256(path, actual, "put here by hand")
    except OSError as error:
        # A team's cache may be read-only for most of its users.
        log(f"{path} cannot be verified next time, its SHA-256 {actual} was not recorded: {error}")


def _download(address: str, path: Path, asked: str | None, log: Log) -> None:
    """Fetch a file into the cache once, however many processes need it at the same time."""
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
    """Fetch to a temporary name; move into place only a file of weights with the right hash."""
    expected = asked or recorded_sha256(path)
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
    if expected not in (None, actual):
        discard(partial)
        cure = "correct the hash after @sha256:" if asked else f"delete {record_of(path)}"
        raise WeightsMismatchError(
            f"{address} answered a file with SHA-256 {actual} instead of {expected}, which was not "
            f"kept: if it is the right one, {cure}"
        )
    try:
        check_file_name(path, actual)
    except WeightsMismatchError:
        discard(partial)
        raise
    record_sha256(path, actual, address)
    partial.replace(path)
    discard(partial)
