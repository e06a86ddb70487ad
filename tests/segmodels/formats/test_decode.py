"""Decoding: every kind of photograph against pixels that are known."""

import contextlib
import io
import os
import struct
import tarfile
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from segmodels.formats.decode import HIGHEST_MAX_PIXELS, decode_image, read_image
from segmodels.formats.errors import InputError, RejectReason, UnreadableImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
RAMP = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rejection(content, **options):
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(content, **options)
    assert caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_come_back_exactly(format, options):
    pixels = decode_image(encoded(Image.fromarray(RAMP), format, **options))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RAMP)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(format):
    image = Image.new("RGB", (24, 16), (200, 100, 50))
    pixels = decode_image(encoded(image, format, quality=95))
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 4


@pytest.mark.parametrize(("mode", "values"), [("L", [0, 128, 255]), ("1", [0, 255, 0])])
def test_grey_is_repeated_over_the_channels(mode, values):
    grey = Image.fromarray(np.array([values], dtype=np.uint8)).convert(mode)
    expected = [[[value] * 3 for value in values]]
    np.testing.assert_array_equal(decode_image(encoded(grey)), expected)


def test_sixteen_bit_grey_keeps_its_high_byte():
    values = np.array([[0, 256, 0x7FFF, 0x8000, 65_535]], dtype=np.uint16)
    expected = np.repeat(np.array([[0, 1, 127, 128, 255]])[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(values))), expected)


def test_sixteen_bit_colour_keeps_its_high_byte():
    # Written by hand, because Pillow cannot: one pixel, 16 bits a channel, no filter.
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHH", 0x0102, 0x80FF, 0xFFFF)
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(decode_image(content), [[[0x01, 0x80, 0xFF]]])


def test_cmyk_jpeg_becomes_rgb():
    # r = (255 - c)(255 - k) / 255, and so on; flat, so that JPEG keeps it nearly.
    image = Image.new("CMYK", (16, 16), (255, 0, 51, 51))
    pixels = decode_image(encoded(image, "JPEG", quality=100))
    expected = np.broadcast_to([0, 204, 163], (16, 16, 3))
    assert np.abs(pixels.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("transparency", [0, bytes([0, 255, 255])])
def test_palette_with_transparency_is_laid_over_white(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    pixels = decode_image(encoded(image, transparency=transparency))
    np.testing.assert_array_equal(pixels, [[WHITE, GREEN, BLUE]])


def test_opaque_palette_keeps_its_colours():
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([2, 1, 0])
    np.testing.assert_array_equal(decode_image(encoded(image)), [[BLUE, GREEN, RED]])
    np.testing.assert_array_equal(decode_image(encoded(image, "GIF")), [[BLUE, GREEN, RED]])


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_half_transparent_pixels_are_laid_over_white(format):
    layer = np.array([[[255, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 102]]], dtype=np.uint8)
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = decode_image(encoded(Image.fromarray(layer), format, **options))
    np.testing.assert_array_equal(pixels, [[RED, WHITE, (153, 153, 153)]])


def test_grey_with_transparency_is_laid_over_white():
    layer = Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8), mode=None)
    assert layer.mode == "LA"
    np.testing.assert_array_equal(decode_image(encoded(layer)), [[(10,) * 3, WHITE]])


def test_a_transparent_colour_is_laid_over_white():
    image = Image.fromarray(np.array([[RED, BLUE]], dtype=np.uint8))
    np.testing.assert_array_equal(decode_image(encoded(image, transparency=RED)), [[WHITE, BLUE]])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(format, orientation):
    # What the camera saw, upright: four quadrants of different brightness, 32 x 16.
    scene = np.kron(np.array([[0, 80], [160, 240]], dtype=np.uint8), np.ones((16, 8), np.uint8))
    # How a camera held so stores it: the inverse of the turn that the tag asks for.
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.T,
        6: np.rot90(scene, 1),
        7: scene[::-1, ::-1].T,
        8: np.rot90(scene, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")

    pixels = decode_image(encoded(image, format, exif=exif, quality=95))

    assert pixels.shape == (32, 16, 3)
    centres = pixels[8::16, 4::8, 0].astype(int)
    assert np.abs(centres - [[0, 80], [160, 240]]).max() <= 6


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"])
def test_a_broken_exif_block_costs_the_rotation_only(exif):
    content = encoded(Image.new("RGB", (8, 8), RED), "JPEG", exif=exif)
    assert decode_image(content).shape == (8, 8, 3)


def test_the_first_frame_stands_for_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    for format in ("GIF", "PNG"):
        content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(decode_image(content)[0, 0], RED)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_a_truncated_file_is_rejected_wherever_it_ends(format):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format)
    for kept in (20, len(content) // 4, len(content) // 2, len(content) - 30):
        assert rejection(content[:kept]) == RejectReason.TRUNCATED


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_no_damage_ends_in_another_error(format):
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format)
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 4):
            damaged[position] = rng.integers(0, 256)
        with contextlib.suppress(UnreadableImageError):
            assert decode_image(bytes(damaged), max_pixels=10_000).shape[2] == 3


def test_empty_and_foreign_content():
    assert rejection(b"") == RejectReason.EMPTY_FILE
    assert rejection(b"%PDF-1.7 not a photograph") == RejectReason.NOT_AN_IMAGE
    assert rejection(b"BM but then prose of some length, no header") == RejectReason.NOT_AN_IMAGE
    assert rejection(b"RIFF\x24\0\0\0WAVEfmt and sound") == RejectReason.NOT_AN_IMAGE


def test_a_bit_error_within_whole_content_is_corrupt():
    content = bytearray(encoded(Image.fromarray(RAMP)))
    content[content.index(b"IDAT") + 8] ^= 0xFF
    assert rejection(bytes(content)) == RejectReason.CORRUPT


def test_the_pixel_limit_is_exact_and_asked_of_the_header():
    content = encoded(Image.fromarray(RAMP), "JPEG")
    assert decode_image(content, max_pixels=35).shape == (5, 7, 3)
    assert rejection(content, max_pixels=34) == RejectReason.OVER_PIXEL_LIMIT
    # Nothing but a header: a decoder that touched the pixels would call it truncated.
    header = encoded(Image.new("L", (4000, 4000)), "PNG")[:60]
    assert rejection(header, max_pixels=1_000_000) == RejectReason.OVER_PIXEL_LIMIT


def test_a_bomb_is_refused_whatever_the_limit():
    header = bytearray(encoded(Image.new("L", (8, 8)), "BMP"))
    header[18:26] = (60_000).to_bytes(4, "little") * 2
    for limit in (10**12, HIGHEST_MAX_PIXELS, 10):
        assert rejection(bytes(header), max_pixels=limit) == RejectReason.OVER_PIXEL_LIMIT


def test_an_image_above_pillows_warning_is_judged_by_our_limit_alone():
    header = bytearray(encoded(Image.new("L", (8, 8)), "BMP"))
    header[18:26] = (10_000).to_bytes(4, "little") * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rejection(bytes(header), max_pixels=99_999_999) == RejectReason.OVER_PIXEL_LIMIT
        assert rejection(bytes(header), max_pixels=100_000_000) == RejectReason.CORRUPT


def test_reading_from_a_folder_and_from_an_archive(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ramp.png").write_bytes(encoded(Image.fromarray(RAMP)))
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(tmp_path / "a", "./a")

    np.testing.assert_array_equal(read_image(tmp_path, "a/ramp.png"), RAMP)
    np.testing.assert_array_equal(read_image(str(tmp_path / "shard.tar"), "a/ramp.png"), RAMP)
    for source in (tmp_path, tmp_path / "shard.tar"):
        with pytest.raises(UnreadableImageError, match=r"absent\.png") as caught:
            read_image(source, "a/absent.png")
        assert caught.value.reason == RejectReason.UNREADABLE_FILE


def test_a_rewritten_archive_is_read_anew(tmp_path):
    path = tmp_path / "shard.tar"
    for size in (3, 4):
        content = encoded(Image.new("RGB", (size, size)), "BMP")
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("x.bmp")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        assert read_image(path, "x.bmp").shape == (size, size, 3)
        # The clock of some file systems is too coarse to tell two writes in one test apart.
        os.utime(path, ns=(size, size))


def test_a_compressed_archive_is_a_mistake_to_mend(tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x.png"), io.BytesIO())
    with pytest.raises(InputError, match="without compression"):
        read_image(tmp_path / "shard.tar", "x.png")
