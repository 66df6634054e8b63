"""JPEG of one scan and of many: what cameras append is left alone, and what was cut off is refused, wherever it was."""

from __future__ import annotations

import io
import re
import struct
import time
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchead.archive import jpeg
from patchead.archive.decode import decode
from patchead.archive.reduced import decode_at_least
from patchead.errors import DecodeError
from tests.helpers.sample_files import encode, picture

PHOTO = Image.fromarray(cv2.GaussianBlur(picture(3, 96, 80), (0, 0), 2))
END, SCAN = b"\xff\xd9", b"\xff\xda"
MODES = {"colour": "RGB", "grey": "L", "inks": "CMYK"}


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def scans(data: bytes | bytearray) -> list[int]:
    """Where the scans of a file begin that has no notes."""
    return [found.start() for found in re.finditer(SCAN, data)]


def halves(data: bytes) -> list[int]:
    """The middles of pairs in the picture's data whose first byte would begin a marker."""
    return [found.start() + 1 for found in re.finditer(b"\xff\0", data) if found.start() > scans(data)[0] + 14]


def colour_by_colour(*, progressive: bool, across: int = 1) -> bytes:
    """Three grey pictures in one file, each colour in scans of its own, brightness ``across`` times as wide."""
    found = b""
    brightness, *colours = PHOTO.convert("YCbCr").split()
    wide = brightness.resize((across * brightness.width, brightness.height))
    for number, channel in enumerate([wide, *colours], 1):
        data = bytearray(encode(channel, "JPEG", quality=90, progressive=progressive))
        for place in scans(data):
            data[place + 5] = number
        frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
        three = data[frame + 4 : frame + 9] + b"\x03" + bytes([1, across << 4 | 1, 0, 2, 0x11, 0, 3, 0x11, 0])
        found = found or bytes(data[:frame]) + segment(data[frame + 1], bytes(three))
        found += data[frame + 13 : -2]
    return found + END


ONE_SCAN = {name: encode(PHOTO.convert(mode), "JPEG", quality=90) for name, mode in MODES.items()}
MANY_SCANS = {
    f"progressive {name}": encode(PHOTO.convert(mode), "JPEG", quality=90, progressive=True)
    for name, mode in MODES.items()
} | {
    "colour by colour": colour_by_colour(progressive=False),
    "progressive colour by colour": colour_by_colour(progressive=True),
}
RESTARTS = {"restart markers": encode(PHOTO, "JPEG", quality=90, progressive=True, restart_marker_rows=1)}
SCANS_WITH_RESTARTS = {
    f"restart markers, {name}": encode(PHOTO.convert(mode), "JPEG", quality=90, restart_marker_rows=1)
    for name, mode in MODES.items()
}
FILES = ONE_SCAN | MANY_SCANS | RESTARTS
PIXELS = {name: decode(data) for name, data in FILES.items()}
TELLING = (END, SCAN, b"\xff\xd8\xff\xe0", b"\xff\xd0", b"\xff\xff", b"\xff\0", b"\xff\xc4\0\x10", b"\xff\xe1\xff\xff")
APPENDED = st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(TELLING)), min_size=1, max_size=9).map(b"".join)


def motion_photo(data: bytes) -> bytes:
    return data + struct.pack(">I", 24) + b"ftypmp42\0\0\0\0isommp42" + np.random.default_rng(5).bytes(300_000)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60)
@given(APPENDED)
def test_what_a_camera_appends_is_left_alone(name: str, behind: bytes) -> None:
    np.testing.assert_array_equal(decode(FILES[name] + behind), PIXELS[name])


@pytest.mark.parametrize("name", FILES)
def test_much_that_a_camera_appends_is_left_alone(name: str) -> None:
    data, random = FILES[name], np.random.default_rng(0)
    appended = [random.bytes(200_000) for _ in range(5)] + [bytes(5000), bytes(5000) + END, SCAN, SCAN + END, data, END]
    for behind in appended:
        np.testing.assert_array_equal(decode(data + behind), PIXELS[name])
    np.testing.assert_array_equal(decode(motion_photo(data)), PIXELS[name])


@pytest.mark.parametrize("name", ["progressive colour", "progressive grey"])
def test_the_first_of_several_pictures(name: str) -> None:
    sink = io.BytesIO()
    first = PHOTO.convert(MODES[name.split()[1]])
    first.save(sink, "MPO", save_all=True, append_images=[Image.new("L", (800, 800))] * 2, quality=90, progressive=True)
    np.testing.assert_array_equal(decode(sink.getvalue()), PIXELS[name])


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60)
@given(APPENDED)
def test_what_follows_a_missing_end_marker_ends_in_pixels_or_in_a_decode_error(name: str, behind: bytes) -> None:
    try:
        found = decode(FILES[name][:-2] + behind)
    except DecodeError as exc:
        assert str(exc)
    else:
        assert found.shape == (96, 80, 3)


@pytest.mark.parametrize("behind", [b"", END, bytes(900), motion_photo(END)], ids=["cut", "closed", "filled", "video"])
@pytest.mark.parametrize("name", MANY_SCANS | RESTARTS)
def test_what_was_cut_off_before_a_scan_is_refused(name: str, behind: bytes) -> None:
    data = FILES[name]
    for place in scans(data)[1:]:
        with pytest.raises(DecodeError, match="truncated"):
            decode(data[:place] + behind)


@pytest.mark.parametrize("name", FILES)
def test_what_was_cut_off_in_the_header_of_a_scan_is_refused(name: str) -> None:
    data = FILES[name]
    for place in scans(data):
        length = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        for left in range(2, length):
            for behind in (b"", END, bytes(99)):
                with pytest.raises(DecodeError, match=r"truncated|damaged"):
                    decode(data[: place + left] + behind)


@pytest.mark.parametrize("name", MANY_SCANS)
def test_notes_between_scans_are_no_scans_and_no_end(name: str) -> None:
    data = FILES[name]
    note = segment(0xFE, b"a note " + SCAN + b"\0\x08\x01" + END + FILES["progressive grey"])
    for place in scans(data)[1:]:
        noted = data[:place] + note + data[place:]
        np.testing.assert_array_equal(decode(noted), PIXELS[name])
        np.testing.assert_array_equal(decode(noted[:-2]), PIXELS[name])
        np.testing.assert_array_equal(decode(noted + SCAN), PIXELS[name])


@pytest.mark.parametrize("name", ["colour by colour", "progressive colour by colour"])
def test_a_file_of_three_grey_pictures_is_a_colour_picture(name: str) -> None:
    assert np.abs(PIXELS[name].astype(int) - np.array(PHOTO)).mean() < 3


@pytest.mark.parametrize("name", MANY_SCANS)
def test_the_scans_of_a_thumbnail_do_not_count(name: str) -> None:
    data = FILES[name]
    noted = data[:2] + segment(0xE1, b"Exif\0\0" + FILES["progressive colour"]) + data[2:]
    np.testing.assert_array_equal(decode(noted + SCAN), PIXELS[name])
    for place in scans(data)[1:]:
        cut = noted[: len(noted) - len(data) + place]
        with pytest.raises(DecodeError, match="last scans"):
            decode(cut + END)


@pytest.mark.parametrize("behind", [b"", END], ids=["cut", "closed"])
@pytest.mark.parametrize("name", MANY_SCANS)
def test_in_little_what_was_cut_off_is_refused_too(name: str, behind: bytes) -> None:
    data = FILES[name]
    for place in scans(data)[1:]:
        with pytest.raises(DecodeError, match="truncated"):
            decode_at_least(data[:place] + behind, 24)


@pytest.mark.parametrize("behind", [b"", END], ids=["cut", "closed"])
@pytest.mark.parametrize("name", SCANS_WITH_RESTARTS | RESTARTS)
def test_what_was_cut_off_before_a_restart_is_refused(name: str, behind: bytes) -> None:
    data = (SCANS_WITH_RESTARTS | RESTARTS)[name]
    restarts = [found.start() for found in re.finditer(b"\xff[\xd0-\xd7]", data)]
    assert len(restarts) > 4
    for place in restarts:
        for kept in (0, 1, 2):
            with pytest.raises(DecodeError, match="truncated"):
                decode(data[: place + kept] + behind)


@pytest.mark.parametrize("name", ONE_SCAN)
def test_what_was_cut_off_in_half_a_pair_is_refused_as_cut_off(name: str) -> None:
    photo = Image.fromarray(picture(3, 96, 80)).convert(MODES[name])
    data = encode(photo, "JPEG", quality=95)
    assert len(halves(data)) > 5
    for place in halves(data)[:20]:
        for behind in (b"", END, bytes(300)):
            with pytest.raises(DecodeError, match="truncated"):
                decode(data[:place] + behind)


@pytest.mark.parametrize("name", ["colour", "grey", "inks", "progressive grey"])
def test_bytes_between_its_segments_are_no_damage_and_hide_none(name: str) -> None:
    data = FILES[name]
    tables = data.index(b"\xff\xdb")
    for changed in (data[:tables] + b"ab" + data[tables:], data[:-2] + bytes(range(65, 91)) * 9 + END):
        np.testing.assert_array_equal(decode(changed), PIXELS[name])
        for share in (0.4, 0.7, 0.9):
            start = scans(changed)[0] + 20
            cut = changed[: start + int((len(data) - start) * share)]
            with pytest.raises(DecodeError, match="truncated"):
                decode(cut + END)


DEEP: dict[str, dict[str, Any]] = {
    "12 bits": {"level": 95, "bitspersample": 12},
    "16 bits, lossless": {"lossless": True, "bitspersample": 16},
    "8 bits, lossless": {"lossless": True, "bitspersample": 8},
}


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize("name", DEEP)
def test_a_deep_or_lossless_one_is_read_whole_or_refused(name: str, colour: bool) -> None:
    bits = DEEP[name]["bitspersample"]
    values = (np.array(PHOTO) if colour else np.array(PHOTO)[..., 0].copy()).astype(
        np.uint8 if bits == 8 else np.uint16
    )
    data = bytes(imagecodecs.jpeg8_encode(values << (bits - 8), **DEEP[name]))
    expected, start = decode(data), scans(data)[0] + 20
    for behind in (b"appended", SCAN, np.random.default_rng(2).bytes(9000)):
        np.testing.assert_array_equal(decode(data + behind), expected)
    for end in (b"", bytes(900), b"\xff", b"\xff\xff" + END):
        np.testing.assert_array_equal(decode(data[:-2] + end), expected)
    for place in [*range(start, len(data) - 20, len(data) // 20), *halves(data)[:9]]:
        for behind in (b"", END, bytes(900)):
            with pytest.raises(DecodeError, match="truncated"):
                decode(data[:place] + behind)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_third_of_the_colours_width_is_not_read_by_turbojpeg_and_refused_where_cut_off(progressive: bool) -> None:
    data = colour_by_colour(progressive=progressive, across=3)
    wide = np.array(PHOTO.resize((240, 96)))
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(data)
    assert np.abs(decode(data).astype(int) - wide).mean() < 3
    start = scans(data)[0] + 20
    for place in range(start, len(data) - 20, 97):
        with pytest.raises(DecodeError, match="truncated"):
            decode(data[:place] + END)


def test_what_arithmetic_coding_leaves_out_at_the_end_is_not_missing() -> None:
    data = encode(Image.new("L", (640, 640), 90), "JPEG", quality=90)
    coded = segment(0xC9, struct.pack(">BHHB", 8, 640, 640, 1) + b"\1\x11\0") + segment(0xDA, b"\1\1\0\0\x3f\0")
    arithmetic = data[: data.index(b"\xff\xc0")] + coded + b"\xff\0\xcf\xe1\x30\x6a" + END  # by jpegtran
    for file in (arithmetic, arithmetic[:20] + b"ab" + arithmetic[20:]):
        np.testing.assert_allclose(decode(file), 90, atol=1)


def test_a_last_byte_of_zeros_is_of_the_picture_where_the_end_marker_is_missing() -> None:
    endings = set()
    for seed in range(400):
        pixels = picture(seed, 16, 16)
        data = encode(pixels if seed % 2 else np.repeat(pixels[..., :1], 3, axis=-1), "JPEG", quality=60)
        endings.add(data[-4:-2])
        for behind in (b"", bytes(1), bytes(700), b"\xff", b"\xff" + bytes(9)):
            np.testing.assert_array_equal(decode(data[:-2] + behind), decode(data))
    assert b"\xff\0" in endings
    assert len([ending for ending in endings if ending[1] == 0]) > 1


def test_megabytes_are_walked_through_in_no_time() -> None:
    data = FILES["progressive colour"]
    content = np.random.default_rng(1).integers(0, 256, 6_000_000, np.uint8)
    content[1:][content[:-1] == 0xFF] = 0
    whole = data[: scans(data)[0] + 14] + content.tobytes() + b"\0" + END
    start = time.thread_time()  # the processor's, whoever else uses it
    found = jpeg.completed(whole + b"appended")
    assert time.thread_time() - start < 0.1  # a step of Python for each byte takes a second
    assert found == whole
