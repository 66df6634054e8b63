"""Cut off, closed, filled up, or with damaged notes: a picture is scored as it is, or refused for what is wrong."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from patchead.archive.decode import decode
from patchead.errors import DecodeError
from tests.helpers.sample_files import encode, grey_16, picture

SMOOTH = cv2.GaussianBlur(picture(3, 96, 80), (0, 0), 4)
END = b"\xff\xd9"
JPEGS = {
    "baseline": encode(SMOOTH, "JPEG", quality=90),
    "4:4:4": encode(SMOOTH, "JPEG", quality=90, subsampling=0),
    "progressive": encode(SMOOTH, "JPEG", quality=90, progressive=True),
    "restart markers": encode(SMOOTH, "JPEG", quality=90, restart_marker_rows=1),
    "grey": encode(SMOOTH[..., 0], "JPEG", quality=90),
    "CMYK": encode(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=90),
}


def scan(data: bytes) -> int:
    """Where its entropy-coded data begin."""
    return data.index(b"\xff\xda")


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("behind", [b"", b"\0" * 700, b"\xff"], ids=["nothing", "zeros", "half a marker"])
def test_a_jpeg_that_lacks_only_its_end_marker_is_a_picture(name: str, behind: bytes) -> None:
    data = JPEGS[name]
    assert data.endswith(END)
    np.testing.assert_array_equal(decode(data[:-2] + behind), decode(data))


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize(
    "behind", [b"", END, b"\0" * 4000, b"\0" * 400 + END], ids=["nothing", "closed", "filled", "filled, closed"]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_jpeg_that_is_cut_off_is_refused_however_it_ends(name: str, behind: bytes, share: float) -> None:
    data = JPEGS[name]
    start = scan(data) + 20
    with pytest.raises(DecodeError, match=r"truncated: .*(data end|last scans|filled up)|truncated: Truncated"):
        decode(data[: start + int((len(data) - start) * share)] + behind)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_plain_jpeg_whose_codes_are_zeros_is_a_picture(progressive: bool) -> None:
    for value in (0, 128, 255):
        plain = np.full((400, 600, 3), value, np.uint8)
        data = encode(plain, "JPEG", optimize=True, progressive=progressive)
        np.testing.assert_allclose(decode(data), plain, atol=1)
    half = np.concatenate([cv2.resize(SMOOTH, (800, 160)), np.zeros((1600, 800, 3), np.uint8)])
    data = encode(half, "JPEG", optimize=True, progressive=progressive, subsampling=0)
    assert np.abs(decode(data).astype(int) - half).mean() < 1


def test_what_a_camera_appends_to_a_jpeg_is_left_alone() -> None:
    data = JPEGS["baseline"]
    for behind in (b"camera's own notes", bytes(5000), JPEGS["grey"], JPEGS["grey"][:300]):
        np.testing.assert_array_equal(decode(data + behind), decode(data))


def test_a_thumbnail_is_not_taken_for_the_end_of_its_photo() -> None:
    data = JPEGS["baseline"]
    note = b"Exif\0\0" + JPEGS["grey"]
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + data[2:]
    np.testing.assert_array_equal(decode(with_thumbnail), decode(data))
    np.testing.assert_array_equal(decode(with_thumbnail[:-2]), decode(data))
    with pytest.raises(DecodeError, match="truncated"):
        decode(with_thumbnail[: len(with_thumbnail) - len(data) // 3] + bytes(900))


def stored(image: np.ndarray, format: str) -> bytes:
    return encode(image, format)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(
    ("format", "grey"), [("BMP", False), ("BMP", True), ("TIFF", False), ("PPM", False), ("PPM", True)]
)
def test_an_uncompressed_picture_that_was_filled_up_is_refused(
    format: str, grey: bool, share: float, fill: bytes
) -> None:
    data = encode(SMOOTH[..., 0] if grey else SMOOTH, format)
    cut = 1100 + int((len(data) - 1100) * share)
    end = data.index(b"II") if format == "TIFF" else len(data)
    assert end in (0, len(data))
    with pytest.raises(
        DecodeError, match=r"truncated: cut off and filled up, as \d+ of 96 rows, .* hold nothing but one"
    ):
        decode(data[:cut] + fill * (len(data) - cut))


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("format", ["BMP", "TIFF", "PPM"])
def test_a_part_on_a_plain_ground_is_not_taken_for_cut_off(format: str, value: int) -> None:
    plain = np.full((96, 80, 3), value, np.uint8)
    framed, part, wide, one = (plain.copy() for _ in range(4))
    framed[8:88, 8:72] = SMOOTH[8:88, 8:72]
    part[30:60, 20:50] = SMOOTH[30:60, 20:50]
    wide[10:80] = SMOOTH[10:80]  # from side to side, as in a letterbox
    one[40, 40] = 99
    for image in (plain, framed, part, wide, one):
        np.testing.assert_array_equal(decode(encode(image, format)), image)


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "JPEG2000", "PNG", "GIF"])
def test_a_compressed_picture_that_was_filled_up_is_refused(format: str) -> None:
    data = encode(picture(7, 96, 80), format)
    for share in (0.4, 0.8):
        cut = int(len(data) * share)
        with pytest.raises(DecodeError, match=r"truncated|damaged"):
            decode(data[:cut] + bytes(len(data) - cut))


def with_chunk(data: bytes, name: bytes, content: bytes, *, wrong: bool = False, before: bytes = b"IDAT") -> bytes:
    place = data.index(before) - 4
    sum_ = zlib.crc32(name + content) ^ (0xFFFF if wrong else 0)
    return data[:place] + struct.pack(">I", len(content)) + name + content + struct.pack(">I", sum_) + data[place:]


VALUES_16 = SMOOTH[..., 0].astype(np.uint16) * 257
PNGS = {"8 bits": encode(SMOOTH), "16 bits": grey_16(VALUES_16)}


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("name", PNGS)
def test_notes_of_a_png_are_no_reason_to_refuse_it(name: str, before: bytes) -> None:
    data, expected = PNGS[name], decode(PNGS[name])
    text = b"settings\0\0" + zlib.compress(bytes(6_000_000))
    profile = b"profile\0\0" + zlib.compress(bytes(9_000_000))
    for changed in (
        with_chunk(data, b"tEXt", b"a\0b", wrong=True, before=before),
        with_chunk(data, b"zTXt", text, before=before),
        with_chunk(data, b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(3_000_000)), before=before),
        with_chunk(data, b"tEXt", b"a\0" + b"x" * 3_000_000, before=before),
        with_chunk(data, b"iCCP", profile, before=b"IDAT"),
        with_chunk(data, b"eXIf", b"MM\0\x2a", wrong=True, before=before),
        with_chunk(data, b"tIME", b"1", before=before),
    ):
        np.testing.assert_array_equal(decode(changed), expected)


def test_many_megabytes_of_text_in_many_notes() -> None:
    notes = PngImagePlugin.PngInfo()
    for number in range(90):
        notes.add_text(f"note {number}", "x" * 900_000, zip=True)
    np.testing.assert_array_equal(decode(encode(SMOOTH, "PNG", pnginfo=notes)), SMOOTH)


@pytest.mark.parametrize("name", PNGS)
def test_a_png_that_lacks_only_its_end_is_a_picture(name: str) -> None:
    data, expected = PNGS[name], decode(PNGS[name])
    for left_out in (1, 4, 5, 8, 12):
        np.testing.assert_array_equal(decode(data[:-left_out]), expected)
    noted = with_chunk(data, b"tEXt", b"a\0" + b"b" * 500, before=b"IEND")
    np.testing.assert_array_equal(decode(noted[:-200]), expected)


@pytest.mark.parametrize("name", PNGS)
def test_a_png_that_lacks_pixels_is_refused_also_when_it_is_closed(name: str) -> None:
    data = PNGS[name]
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    pixels = data[start:end]
    cut = pixels[: len(pixels) // 2]
    closed = data[: start - 8] + struct.pack(">I", len(cut)) + b"IDAT" + cut
    closed += struct.pack(">I", zlib.crc32(b"IDAT" + cut)) + data[end + 4 :]
    with pytest.raises(DecodeError, match=r"truncated|damaged"):
        decode(closed)
