from __future__ import annotations

import io
import re
import struct
import time
import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage.data import astronaut

from patchead.archive.decode import FITS, decode, fit
from patchead.archive.resize import SHRINK
from patchead.encoders import EncoderSpec
from patchead.errors import DecodeError, SettingsError
from patchead.hashing import content_hash
from tests.helpers.sample_files import encode, grey_16, picture, png, raw_png

SMOOTH = cv2.GaussianBlur(picture(3, 96, 80), (0, 0), 4)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_are_exact(format: str) -> None:
    image = picture()
    decoded = decode(encode(image, format))
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize(("format", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_formats_are_close(format: str, options: dict[str, int]) -> None:
    difference = decode(encode(SMOOTH, format, **options)).astype(int) - SMOOTH
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_bilevel_become_three_equal_channels(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    expected = np.array(image.convert("L"))
    np.testing.assert_array_equal(decode(encode(image)), np.stack([expected] * 3, axis=2))


@pytest.mark.parametrize("transparency", [None, 0])
def test_palette_is_expanded_with_its_alpha(transparency: int | None) -> None:
    image = Image.fromarray(SMOOTH).quantize(8)
    expected = np.array(image.convert("RGB"))
    options = {} if transparency is None else {"transparency": transparency}
    if transparency is not None:
        expected[np.array(image) == transparency] = 0
        assert (np.array(image) == transparency).any()
    np.testing.assert_array_equal(decode(encode(image, **options)), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_black(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    alpha = picture(1)[..., 0]
    image.putalpha(Image.fromarray(alpha))
    colours = np.array(image.convert("RGBA"))[..., :3].astype(float)
    expected = colours * alpha[..., None] / 255
    np.testing.assert_allclose(decode(encode(image)), expected, atol=0.51)


def test_cmyk_jpeg_becomes_the_same_picture() -> None:
    image = Image.fromarray(SMOOTH)
    decoded = decode(encode(image.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - SMOOTH).mean() < 3


def test_exif_orientation_is_applied_in_all_eight_cases() -> None:
    image = Image.fromarray(SMOOTH)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(image, "JPEG", quality=95, exif=exif)
        expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        assert expected.shape == ((80, 96, 3) if orientation >= 5 else (96, 80, 3))
        np.testing.assert_array_equal(decode(data), expected, err_msg=f"orientation {orientation}")


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("depth", [8, 16])
def test_exif_orientation_is_applied_once_whoever_decodes(format: str, depth: int) -> None:
    upright = picture()[..., 0]
    stored = Image.fromarray(upright if depth == 8 else upright.astype(np.uint16) * 257)
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T}
    turned |= {6: np.rot90(upright, -1), 7: upright[::-1, ::-1].T, 8: np.rot90(upright)}
    for orientation, expected in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        decoded = decode(encode(stored, format, exif=exif), bit_depth=16)
        np.testing.assert_array_equal(decoded[..., 0], expected, err_msg=f"orientation {orientation}")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_exif_of_which_the_rest_is_damaged_still_turns_the_photo(format: str) -> None:
    """A tag whose value lies outside of the notes: they can be read, but not written again."""
    entries = (
        struct.pack(">H", 2) + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHII", 0x8769, 4, 1, 9999)
    )
    data = encode(picture(), format, exif=b"Exif\0\0MM\0\x2a\0\0\0\x08" + entries + bytes(4), lossless=True)
    plain = decode(encode(picture(), format, lossless=True))
    np.testing.assert_array_equal(decode(data), np.rot90(plain, -1))


def test_damaged_exif_does_not_fail_the_image() -> None:
    data = encode(picture(), "PNG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode(data), picture())


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_grey_is_scaled_by_the_smallest_depth_that_holds_it(bits: int) -> None:
    values = np.linspace(0, (1 << bits) - 1, 96).round().astype(np.uint16).reshape(12, 8)
    expected = np.round(values * (255 / ((1 << bits) - 1)))
    for data in (grey_16(values), encode(Image.fromarray(values), "TIFF")):
        decoded = decode(data)
        assert decoded.shape == (12, 8, 3)
        np.testing.assert_allclose(decoded[..., 1], expected, atol=0.51)
        assert decoded.max() == 255


def test_depth_comes_from_the_setting_then_from_sbit_then_from_the_maximum() -> None:
    dark = np.full((2, 2), 100, np.uint16)
    assert decode(grey_16(dark))[0, 0, 0] == 100
    assert decode(grey_16(dark, [(b"sBIT", b"\x0c")]))[0, 0, 0] == round(100 * 255 / 4095)
    assert decode(grey_16(dark, [(b"sBIT", b"\x0c")]), bit_depth=10)[0, 0, 0] == round(100 * 255 / 1023)
    bright = np.array([[5000, 0], [0, 100]], np.uint16)
    assert decode(grey_16(bright), bit_depth=12)[0, 0, 0] == 255
    # A writer that keeps to the PNG standard has shifted its 12 bits up to 16.
    assert decode(grey_16(bright << 3, [(b"sBIT", b"\x0c")]))[0, 0, 0] == round(40_000 * 255 / 65_535)
    assert decode(grey_16(np.zeros((2, 2), np.uint16))).max() == 0


def test_16_bit_colour_keeps_its_channels_and_its_alpha() -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (6, 4, 4)).astype(np.uint16)
    values[0, 0] = 65_535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values[..., :3])
    decoded = decode(raw_png(4, 6, 2, 16, rows))
    np.testing.assert_allclose(decoded, values[..., :3] / 257, atol=0.51)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    expected = values[..., :3] / 257 * (values[..., 3:] / 65_535)
    np.testing.assert_allclose(decode(raw_png(4, 6, 6, 16, rows)), expected, atol=1.01)


def test_the_first_of_several_frames_is_taken() -> None:
    frames = [Image.fromarray(picture(seed)) for seed in (0, 1)]
    data = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data), picture(0))


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_truncated_image_is_refused(format: str, cut: float) -> None:
    data = encode(SMOOTH, format)
    with pytest.raises(DecodeError, match=r"truncated|not an image|damaged"):
        decode(data[: int(len(data) * cut)])


@pytest.mark.parametrize("cut", [0.5, 0.9, 0.99])
def test_a_truncated_16_bit_image_is_refused(cut: float) -> None:
    values = (SMOOTH[..., 0].astype(np.uint16) * 200) + picture(5, 96, 80)[..., 0]
    for data in (grey_16(values), encode(Image.fromarray(values), "TIFF")):
        with pytest.raises(DecodeError, match=r"truncated|not an image|damaged"):
            decode(data[: int(len(data) * cut)])


def test_truncated_jpeg_names_the_reason() -> None:
    data = encode(SMOOTH, "JPEG")
    with pytest.raises(DecodeError, match="truncated"):
        decode(data[: len(data) // 2])


def flipped(data: bytes, start: float | int, count: int) -> bytes:
    """The file with some of its bytes changed, from a place or a share of its length."""
    broken = bytearray(data)
    first = start if isinstance(start, int) else int(len(data) * start)
    for place in range(first, first + count):
        broken[place] ^= 0x55
    return bytes(broken)


NO_IMAGE = "not an image: no readable header of a png, jpeg, bmp, tiff, webp, gif, pnm, jpeg 2000 or avif"
SHORT_PNG = r"truncated: a PNG chunk announces \d+ bytes, more than the file has"
NOISY = SMOOTH[..., 0].astype(np.uint16) * 200 + picture(5, 96, 80)[..., 0]
DAMAGED = {
    "PNG": (encode(SMOOTH, "PNG"), SHORT_PNG, r"damaged: broken data stream .*"),
    "JPEG": (encode(SMOOTH, "JPEG"), r"truncated: Truncated File Read", r"damaged: broken data stream .*"),
    "BMP": (encode(SMOOTH, "BMP"), r"truncated: image file is truncated \(\d+ bytes not processed\)", None),
    "TIFF": (encode(SMOOTH, "TIFF"), r"truncated: 1 of 1 strips are not in the file", None),
    "WEBP": (encode(SMOOTH, "WEBP"), r"damaged: could not create decoder object", r"damaged: failed to read .*"),
    "16-bit PNG": (
        grey_16(NOISY),
        SHORT_PNG,
        r"damaged or truncated 16-bit image",
    ),
    "16-bit TIFF": (encode(Image.fromarray(NOISY), "TIFF"), r"truncated: 1 of 1 strips are not in the file", None),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_of_each_format_is_a_decode_error_that_says_what(name: str) -> None:
    data, when_cut, when_changed = DAMAGED[name]
    assert decode(data).shape == (96, 80, 3)
    with pytest.raises(DecodeError) as cut:
        decode(data[: len(data) // 2])
    assert re.fullmatch(when_cut, str(cut.value))
    with pytest.raises(DecodeError) as headless:
        decode(flipped(data, 0, 8))
    assert str(headless.value) == NO_IMAGE
    if when_changed:
        with pytest.raises(DecodeError) as changed:
            decode(flipped(data, 20 if name == "JPEG" else 0.5, 40))
        assert re.fullmatch(when_changed, str(changed.value))


@pytest.mark.parametrize(
    ("data", "arguments", "error"),
    [
        (png(), {"max_pixels": "100"}, TypeError),
        (grey_16(NOISY), {"bit_depth": 0}, ZeroDivisionError),
        (grey_16(NOISY), {"bit_depth": -1}, ValueError),
        ("a path", {}, TypeError),
        (7, {}, TypeError),
    ],
    ids=["max_pixels", "bit depth 0", "bit depth -1", "str", "int"],
)
def test_a_mistake_in_our_own_code_is_no_damaged_image(data: Any, arguments: dict[str, Any], error: type) -> None:
    with pytest.raises(error) as raised:
        decode(data, **arguments)
    assert type(raised.value) is error


@pytest.mark.parametrize("masks", [b"", struct.pack("<III", 0xF800, 0x7E0, 0x1F)], ids=["555", "565"])
def test_16_bits_for_three_channels_are_no_16_bit_image(masks: bytes) -> None:
    """A bitmap of 5 bits per colour, or with masks of 5, 6 and 5."""
    white = b"\xff\xff" * 8
    place = 54 + len(masks)
    sizes = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 16, 3 if masks else 0, len(white), 0, 0, 0, 0)
    bitmap = b"BM" + struct.pack("<IHHI", place + len(white), 0, 0, place) + sizes + masks + white
    np.testing.assert_array_equal(decode(bitmap), np.full((2, 4, 3), 255))


def test_what_is_no_image_is_refused_by_a_short_reason() -> None:
    with pytest.raises(DecodeError, match=r"^empty file$"):
        decode(b"")
    for data in (
        b"this is a text file\n" * 9,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
    ):
        with pytest.raises(DecodeError, match="not an image"):
            decode(data)


def test_200_megapixels_in_200_kib_are_refused_by_the_header_alone() -> None:
    bomb = raw_png(20_000, 10_000, 0, 8, bytes(20_001 * 10_000))
    assert len(bomb) < 220 * 1024
    tracemalloc.start()
    try:
        start = time.thread_time()  # the processor's, whoever else uses it
        with pytest.raises(DecodeError, match=r"too many pixels: 20000x10000 > `max_pixels` 100000000"):
            decode(bomb)
        assert time.thread_time() - start < 0.5
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_pixel_limit_is_the_setting_and_nothing_else() -> None:
    data = png()
    assert decode(data, max_pixels=96).shape == (12, 8, 3)
    with pytest.raises(DecodeError, match=r"8x12 > `max_pixels` 95"):
        decode(data, max_pixels=95)
    # Pillow's own limit of 2 x 89 million pixels would speak first, in its own words.
    large = raw_png(20_000, 15_000, 0, 1, b"")
    with pytest.raises(DecodeError, match=r"20000x15000 > `max_pixels` 250000000"):
        decode(large, max_pixels=250_000_000)


def test_a_png_chunk_longer_than_the_file_is_refused_before_memory_is_taken() -> None:
    data = bytearray(grey_16(np.full((4, 4), 4000, np.uint16)))
    place = data.index(b"IDAT")
    data[place - 4 : place] = b"\x7f\xff\xff\xff"
    with pytest.raises(DecodeError, match="2147483647 bytes, more than the file has"):
        decode(bytes(data))
    whole = grey_16(np.full((4, 4), 4000, np.uint16))
    assert decode(whole + b"what some cameras append").shape == (4, 4, 3)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused_by_name(dtype: type) -> None:
    data = encode(Image.fromarray(picture()[..., 0].astype(dtype)), "TIFF")
    with pytest.raises(DecodeError, match=r"unsupported: 32-bit grey TIFF of .*allowed are .*16-bit"):
        decode(data)


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP", "16"]), st.data())
def test_damage_ends_in_pixels_or_in_a_decode_error(format: str, data: st.DataObject) -> None:
    clean = grey_16(picture()[..., 0].astype(np.uint16) * 99) if format == "16" else encode(picture(), format)
    broken = bytearray(clean)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(clean) - 1), st.integers(0, 255)), max_size=6)):
        broken[place] = value
    try:
        image = decode(bytes(broken), max_pixels=100_000)
    except DecodeError as exc:
        assert str(exc)
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3


def test_squash_is_pillows_antialiased_bicubic() -> None:
    expected = Image.fromarray(SMOOTH).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(fit(SMOOTH, 32, "squash"), np.array(expected))
    # Antialias: the mean of fine stripes, not one of them.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(fit(stripes, 8, "squash").astype(int) - 100).max() < 6


@pytest.mark.parametrize(("height", "width"), [(90, 60), (60, 90), (61, 61), (33, 97)])
def test_crop_takes_the_centre_square(height: int, width: int) -> None:
    image = cv2.GaussianBlur(picture(4, height, width), (0, 0), 3)
    scale = 32 / min(height, width)
    size = (round(width * scale), round(height * scale))
    whole = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).astype(int)
    top, left = (whole.shape[0] - 32) // 2, (whole.shape[1] - 32) // 2
    expected = whole[top : top + 32, left : left + 32]
    assert np.abs(fit(image, 32, "crop") - expected)[1:-1, 1:-1].mean() < 3


@pytest.mark.parametrize(("height", "width"), [(90, 60), (60, 90), (7, 300)])
def test_pad_keeps_the_shape_and_centres_it_on_black(height: int, width: int) -> None:
    square = fit(np.full((height, width, 3), 200, np.uint8), 30, "pad")
    inside = (square == 200).all(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    tall, wide = (max(1, round(side * 30 / max(height, width))) for side in (height, width))
    assert (len(rows), len(columns)) == (tall, wide)
    assert inside.sum() == tall * wide
    assert square[~inside].max() == 0
    assert abs((rows[0] + rows[-1]) - 29) <= 1
    assert abs((columns[0] + columns[-1]) - 29) <= 1


def test_crop_of_a_ribbon_needs_no_ribbon_of_memory() -> None:
    assert fit(np.zeros((1, 100_000, 3), np.uint8), 224, "crop").shape == (224, 224, 3)


def test_an_unknown_fit_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(SettingsError, match=r"`mode` must be one of squash, crop, pad; got 'stretch'"):
        fit(picture(), 8, "stretch")


def test_content_hash_is_blake2b_of_the_bytes() -> None:
    assert content_hash(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert content_hash(png(1)) == content_hash(png(1)) != content_hash(png(2))


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(300, 400), (1200, 1600), (1201, 1603), (900, 4000)])
def test_a_large_picture_is_reduced_first_and_stays_where_it_is(mode: str, shape: tuple[int, int]) -> None:
    height, width = shape
    y, x = np.mgrid[:height, :width] / np.array(shape).reshape(2, 1, 1)
    image = np.stack([255 * x, 255 * y, 128 + 90 * np.sin(6 * x) * np.cos(5 * y)], axis=-1).astype(np.uint8)
    whole = Image.fromarray(image)
    apart = np.abs(fit(image, 64, mode).astype(int) - fit_whole(whole, 64, mode))
    assert apart.mean() < 0.7
    assert apart.max() <= 4


@pytest.mark.parametrize("kind", ["4:2:0", "4:2:2", "4:4:4"])
def test_colour_of_a_large_jpeg_is_repeated_and_its_brightness_stays(kind: str) -> None:
    photo = np.repeat(np.repeat(astronaut(), 5, axis=0), 4, axis=1)
    large, small = (encode(part, "JPEG", subsampling=kind) for part in (photo, photo[:300]))
    np.testing.assert_array_equal(decode(small), simplejpeg.decode_jpeg(small))
    smooth, found = simplejpeg.decode_jpeg(large), decode(large)
    assert (found == smooth).all() == (kind == "4:4:4")
    grey = (np.array(Image.fromarray(pixels).convert("L"), int) for pixels in (smooth, found))
    apart = np.abs(np.subtract(*grey))
    assert np.quantile(apart, 0.999) <= 1  # more only where a colour is cut at black or white
    for mode in FITS:
        assert np.abs(fit(smooth, 448, mode).astype(int) - fit(found, 448, mode)).mean() < 0.1


def fit_whole(picture: Image.Image, size: int, mode: str) -> np.ndarray:
    """As `fit`, every pixel resampled."""
    if mode == "pad":
        small = [round(side * size / max(picture.size)) for side in picture.size]
        square = Image.new("RGB", (size, size))
        square.paste(picture.resize(small, Image.Resampling.BICUBIC), [(size - side) // 2 for side in small])
        return np.array(square).astype(int)
    side = min(picture.size)
    left, top = ((length - side) / 2 for length in picture.size)
    box = (left, top, left + side, top + side) if mode == "crop" else None
    return np.array(picture.resize((size, size), Image.Resampling.BICUBIC, box=box)).astype(int)


def test_the_spec_of_an_encoder_says_how_pictures_shrink() -> None:
    assert EncoderSpec("timm/test_vit").shrink == SHRINK
