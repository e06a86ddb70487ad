"""Official weights by name: fetched, continued, verified, and put into the cache by hand."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError

import numpy as np
import pyarrow as pa
import pytest
import torch
from file_server import FileServer, serving
from PIL import Image
from torch import Tensor

from segmodels.backbones import load_backbone
from segmodels.backbones.cache import WeightsUnavailableError, cached_names, locate_weights
from segmodels.backbones.download import fetch
from segmodels.backbones.feature_shards import (
    FeatureSettings,
    FeatureShard,
    extract_shard,
    open_features,
)
from segmodels.backbones.file_digests import WeightsMismatchError
from segmodels.backbones.pixels import normalised_pixels, resize_square
from segmodels.backbones.ref import BackboneRef
from segmodels.backbones.registry import REGISTRY, UnknownBackboneError
from segmodels.backbones.vit import VisionTransformer, ViTShape
from segmodels.backbones.weights import WeightsFormatError, weights_digest

NAME = "dino_vitb8"
FILE = "dino_vitbase8_pretrain.pth"
PLACE = f"dino/dino_vitbase8_pretrain/{FILE}"


def drawn(seed: int) -> dict[str, Tensor]:
    """A small transformer in the official layout: shapes are read off the tensors."""
    shape = ViTShape(patch_size=8, dim=64, depth=2, num_heads=1, grid=4, hidden_dim=128)
    model = VisionTransformer(shape)
    model.initialise(torch.Generator().manual_seed(seed))
    return dict(model.state_dict())


def saved(state: dict[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


STATE = drawn(0)
WEIGHTS = saved(STATE)
OTHER = saved(drawn(1))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({PLACE: WEIGHTS}) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def record_in(cache: Path) -> dict[str, str]:
    return json.loads((cache / f"{FILE}.json").read_text())


def put_by_hand(cache: Path, content: bytes) -> Path:
    cache.mkdir(exist_ok=True)
    (cache / FILE).write_bytes(content)
    return cache / FILE


# Whole downloads


def test_a_download_is_kept_with_its_hash_and_not_repeated(server: FileServer, cache: Path) -> None:
    path = locate_weights(NAME, cache, site=server.address)
    assert path.read_bytes() == WEIGHTS
    assert record_in(cache) == {"sha256": sha256(WEIGHTS), "origin": f"{server.address}/{PLACE}"}
    assert visible(cache) == {FILE, f"{FILE}.json"}
    locate_weights(NAME, cache, site=server.address)
    assert server.sent == [len(WEIGHTS)]


def test_a_named_backbone_gives_the_features_of_its_state(server: FileServer, cache: Path) -> None:
    backbone = load_backbone(NAME, cache_folder=cache, site=f"{server.address}/")
    assert backbone.digest == weights_digest(STATE)
    assert (backbone.image_size, backbone.tau, backbone.center_keys) == (480, 0.15, False)
    model = VisionTransformer(ViTShape.from_state(STATE)).eval()
    model.load_state_dict(STATE)
    pixels = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(pixels)
    assert torch.equal(backbone.extract(pixels).keys.flatten(1, 2), expected.keys)


def test_the_features_stage_takes_it_from_the_cache(cache: Path, tmp_path: Path) -> None:
    put_by_hand(cache, WEIGHTS)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "one.png")
    images = pa.table({"image_id": [7], "source": [str(tmp_path)], "path": ["one.png"]})
    settings = FeatureSettings(NAME, image_size=48, batch_size=1, device="cpu")
    extract_shard(
        FeatureShard(images, settings, BackboneRef(NAME, cache_folder=cache)), tmp_path / "shard"
    )
    pixels = torch.as_tensor(normalised_pixels(resize_square(image, 48))[None])
    expected = load_backbone(NAME, cache_folder=cache).extract(pixels).keys[0]
    got = open_features(tmp_path / "shard").keys[0]
    np.testing.assert_array_equal(got, expected.numpy().astype(np.float16))


def test_two_at_once_download_once(server: FileServer, cache: Path) -> None:
    found: list[bytes] = []

    def locate() -> None:
        found.append(locate_weights(NAME, cache, site=server.address).read_bytes())

    threads = [Thread(target=locate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [WEIGHTS] * 4
    assert server.sent == [len(WEIGHTS)]


def test_progress_is_told_in_lines_that_are_apart(server: FileServer, tmp_path: Path) -> None:
    often: list[str] = []
    fetch(f"{server.address}/{PLACE}", tmp_path / "a", log=often.append, log_every_s=0)
    assert often[-1] == f"{FILE}: {len(WEIGHTS) / 1e6:.1f} of {len(WEIGHTS) / 1e6:.1f} MB"
    seldom: list[str] = []
    fetch(f"{server.address}/{PLACE}", tmp_path / "b", log=seldom.append, log_every_s=60)
    assert seldom == []


# Broken downloads


def fetched(server: FileServer, partial: Path) -> bytes:
    fetch(f"{server.address}/{PLACE}", partial, log=lambda _line: None, pause_s=0)
    return partial.read_bytes()


def broken_off(server: FileServer, partial: Path, at: int = 10_000) -> None:
    """Leave a part as an interrupted run does."""
    server.cuts = [at, 0]
    with pytest.raises(HTTPError, match="503"):
        fetched(server, partial)
    assert partial.stat().st_size == at
    server.sent.clear()


def test_a_break_is_continued_at_once(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [10_000, 20_000]
    assert fetched(server, tmp_path / "part") == WEIGHTS
    assert server.sent == [10_000, 20_000, len(WEIGHTS) - 30_000]


def test_a_break_is_continued_by_a_later_run(server: FileServer, cache: Path) -> None:
    cache.mkdir()
    broken_off(server, cache / f"{FILE}.part")
    assert locate_weights(NAME, cache, site=server.address).read_bytes() == WEIGHTS
    assert server.sent == [len(WEIGHTS) - 10_000]
    assert visible(cache) == {FILE, f"{FILE}.json"}


def test_a_download_that_was_complete_is_not_repeated(server: FileServer, cache: Path) -> None:
    cache.mkdir()
    fetched(server, cache / f"{FILE}.part")
    server.broken = True
    assert locate_weights(NAME, cache, site=server.address).read_bytes() == WEIGHTS


def test_a_server_without_ranges_starts_again(server: FileServer, tmp_path: Path) -> None:
    broken_off(server, tmp_path / "part")
    server.ranges = False
    assert fetched(server, tmp_path / "part") == WEIGHTS
    assert server.sent == [len(WEIGHTS)]


@pytest.mark.parametrize("looks_at_if_range", [True, False])
@pytest.mark.parametrize("changed", [OTHER, OTHER[:5_000]])
def test_a_changed_file_starts_again(
    server: FileServer, tmp_path: Path, looks_at_if_range: bool, changed: bytes
) -> None:
    broken_off(server, tmp_path / "part")
    server.looks_at_if_range = looks_at_if_range
    server.files[PLACE] = changed
    server.etag = '"second"'
    assert fetched(server, tmp_path / "part") == changed


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_a_server_that_names_no_version_starts_again(
    server: FileServer, tmp_path: Path, etag: str
) -> None:
    server.etag = etag
    server.looks_at_if_range = False
    broken_off(server, tmp_path / "part")
    assert fetched(server, tmp_path / "part") == WEIGHTS
    assert server.sent == [len(WEIGHTS)]


def test_a_part_of_unknown_origin_starts_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"something else")
    assert fetched(server, tmp_path / "part") == WEIGHTS


def test_a_size_that_is_never_reached_is_told(server: FileServer, cache: Path) -> None:
    server.ranges = False
    server.announced = len(WEIGHTS) + 7
    with pytest.raises(WeightsUnavailableError) as caught:
        locate_weights(NAME, cache, site=server.address)
    assert f"got {len(WEIGHTS)} of {len(WEIGHTS) + 7} bytes" in str(caught.value)
    assert not (cache / FILE).exists()


def test_a_size_below_the_truth_gives_no_weights(server: FileServer, cache: Path) -> None:
    server.announced = len(WEIGHTS) - 7
    with pytest.raises(WeightsUnavailableError, match="holds no weights"):
        locate_weights(NAME, cache, site=server.address)
    assert visible(cache) == set()


def test_a_page_of_a_proxy_is_not_kept(server: FileServer, cache: Path) -> None:
    server.files[PLACE] = b"<html>please sign in</html>"
    with pytest.raises(WeightsUnavailableError, match=f"put it into {cache} as {FILE}"):
        locate_weights(NAME, cache, site=server.address)
    assert visible(cache) == set()


def test_offline_says_what_to_put_where(cache: Path) -> None:
    # The discard port of this machine: nothing listens there, so the connection fails at once.
    with pytest.raises(WeightsUnavailableError) as caught:
        load_backbone(NAME, cache_folder=cache, site="http://127.0.0.1:9")
    message = str(caught.value)
    assert f"http://127.0.0.1:9/{PLACE}" in message
    assert f"put it into {cache} as {FILE}" in message
    assert visible(cache) == set()


# Hashes


def test_a_users_hash_is_honoured(server: FileServer, cache: Path) -> None:
    asked = f"{NAME}@sha256:{sha256(WEIGHTS).upper()}"
    backbone = load_backbone(asked, cache_folder=cache, site=server.address)
    assert backbone.digest == weights_digest(STATE)


def test_a_download_with_another_hash_is_not_kept(server: FileServer, cache: Path) -> None:
    asked = f"{NAME}@sha256:{sha256(OTHER)}"
    with pytest.raises(WeightsMismatchError, match="correct the hash after @sha256:") as caught:
        locate_weights(asked, cache, site=server.address)
    assert sha256(WEIGHTS) in str(caught.value)
    assert visible(cache) == set()


def test_a_cached_file_with_another_hash_is_refused(cache: Path) -> None:
    put_by_hand(cache, WEIGHTS)
    locate_weights(NAME, cache)
    with pytest.raises(WeightsMismatchError, match="was asked for: correct the hash"):
        locate_weights(f"{NAME}@sha256:{sha256(OTHER)}", cache)


def test_a_users_hash_counts_more_than_the_record(cache: Path) -> None:
    put_by_hand(cache, WEIGHTS)
    locate_weights(NAME, cache)
    put_by_hand(cache, OTHER)
    locate_weights(f"{NAME}@sha256:{sha256(OTHER)}", cache)
    assert record_in(cache)["sha256"] == sha256(OTHER)


def test_paths_take_a_hash_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(WEIGHTS)
    assert locate_weights(f"{path}@sha256:{sha256(WEIGHTS)}") == path
    with pytest.raises(WeightsMismatchError, match="was asked for"):
        locate_weights(f"{path}@sha256:{sha256(OTHER)}")
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_hash_is_refused(cache: Path) -> None:
    with pytest.raises(UnknownBackboneError, match="64 hexadecimal digits"):
        locate_weights(f"{NAME}@sha256:2e405c", cache)


def test_a_file_that_was_damaged_later_is_caught(server: FileServer, cache: Path) -> None:
    path = locate_weights(NAME, cache, site=server.address)
    before = path.stat()
    damaged = bytearray(WEIGHTS)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(WeightsMismatchError, match="delete it to have it fetched again"):
        load_backbone(NAME, cache_folder=cache, site=server.address)
    path.unlink()
    assert load_backbone(NAME, cache_folder=cache, site=server.address).digest


def test_a_second_download_must_be_the_first_ones_file(server: FileServer, cache: Path) -> None:
    locate_weights(NAME, cache, site=server.address).unlink()
    server.files[PLACE] = OTHER
    with pytest.raises(WeightsMismatchError, match=f"delete {cache / FILE}.json"):
        locate_weights(NAME, cache, site=server.address)
    (cache / f"{FILE}.json").unlink()
    assert locate_weights(NAME, cache, site=server.address).read_bytes() == OTHER


def test_a_damaged_record_is_told(cache: Path) -> None:
    put_by_hand(cache, WEIGHTS)
    (cache / f"{FILE}.json").write_text("{}")
    with pytest.raises(WeightsMismatchError, match="delete it to accept"):
        locate_weights(NAME, cache)


# Files put into the cache by hand


def test_a_file_put_there_by_hand_is_accepted_and_recorded(cache: Path) -> None:
    path = put_by_hand(cache, WEIGHTS)
    assert load_backbone(NAME, cache_folder=cache, site="http://127.0.0.1:9").name == NAME
    assert record_in(cache) == {"sha256": sha256(WEIGHTS), "origin": "put here by hand"}
    path.write_bytes(OTHER)
    with pytest.raises(WeightsMismatchError, match=f"delete {FILE}.json beside it to accept"):
        locate_weights(NAME, cache)


def test_no_record_is_made_of_a_file_without_weights(cache: Path) -> None:
    put_by_hand(cache, WEIGHTS[:-100])
    with pytest.raises(WeightsFormatError, match="damaged"):
        locate_weights(NAME, cache)
    put_by_hand(cache, WEIGHTS)
    assert locate_weights(NAME, cache) == cache / FILE


def test_a_cache_that_takes_no_record_still_serves(cache: Path) -> None:
    put_by_hand(cache, WEIGHTS)
    # A folder in the record's place refuses the file as a read-only cache does.
    (cache / f"{FILE}.json").mkdir()
    lines: list[str] = []
    assert locate_weights(NAME, cache, log=lines.append) == cache / FILE
    assert "was not recorded" in lines[0]


def test_cached_files_have_names_of_their_own() -> None:
    assert len({entry.file_name for entry in REGISTRY.values()}) == len(REGISTRY)


def test_what_the_cache_holds_is_listed_by_name(cache: Path) -> None:
    assert cached_names(cache) == []
    put_by_hand(cache, b"only looked for, not read")
    (cache / "dinov2_vits14_reg4_pretrain.pth.part").write_bytes(b"")
    assert cached_names(cache) == [NAME]
    assert visible(cache) == {FILE, "dinov2_vits14_reg4_pretrain.pth.part"}
