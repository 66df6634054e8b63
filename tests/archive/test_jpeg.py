"""JPEG of one scan and of many: what cameras append is left alone, and what was cut off is refused, wherever it was."""

from __future__ import annotations

import io
import re
import struct
import time

import cv2
import numpy as np
import pytest
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


def colour_by_colour(*, progressive: bool) -> bytes:
    """Three grey pictures in one file, each colour in scans of its own."""
    found = b""
    for number, channel in enumerate(PHOTO.convert("YCbCr").split(), 1):
        data = bytearray(encode(channel, "JPEG", quality=90, progressive=progressive))
        for place in scans(data):
            data[place + 5] = number
        frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
        three = data[frame + 4 : frame + 9] + b"\x03" + b"".join(bytes([colour, 0x11, 0]) for colour in (1, 2, 3))
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


def test_megabytes_are_walked_through_in_no_time() -> None:
    data = FILES["progressive colour"]
    content = np.random.default_rng(1).integers(0, 256, 6_000_000, np.uint8)
    content[1:][content[:-1] == 0xFF] = 0
    whole = data[: scans(data)[0] + 14] + content.tobytes() + b"\0" + END
    start = time.thread_time()  # the processor's, whoever else uses it
    found = jpeg.completed(whole + b"appended")
    assert time.thread_time() - start < 0.1  # a step of Python for each byte takes a second
    assert found == whole
