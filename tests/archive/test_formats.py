"""Every format, layout and bit depth against the pixels that were written, and against a reader of its own."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from patchead.archive.decode import decode
from patchead.errors import DecodeError
from tests.helpers.sample_files import encode, picture, raw_png

H, W = 40, 56
GREY, RGB, ALPHA = 1, 3, 4


def samples(bits: int, channels: int) -> np.ndarray:
    """Smooth samples (H, W, channels) of so many bits, that use black and white; of 8 and 16 bits unsigned."""
    field = cv2.GaussianBlur(np.random.default_rng(bits + channels).random((H, W, channels)), (0, 0), 2)
    field = field.reshape(H, W, channels)
    field = (field - field.min()) / (field.max() - field.min())
    return (field * ((1 << bits) - 1)).round().astype(np.uint8 if bits == 8 else np.uint16)


def truth(values: np.ndarray, bits: int) -> np.ndarray:
    """What is to be seen, float (H, W, 3): grey or RGB; with a fourth channel, alpha on black."""
    shown = values / ((1 << bits) - 1)
    colours = shown[..., :3] if values.shape[2] >= 3 else np.repeat(shown[..., :1], 3, axis=2)
    return 255 * colours * (shown[..., 3:] if values.shape[2] == 4 else 1)


def close(data: bytes, expected: np.ndarray, tolerance: float = 1, **options: Any) -> None:
    found = decode(data, **options)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous and found.flags.writeable
    np.testing.assert_allclose(found, expected, atol=tolerance)


def squeezed(values: np.ndarray) -> np.ndarray:
    return values[..., 0] if values.shape[2] == 1 else values


def tiff(values: np.ndarray, **options: Any) -> bytes:
    sink = io.BytesIO()
    if "photometric" not in options:
        options["photometric"] = "rgb" if values.ndim == 3 else "minisblack"
    tifffile.imwrite(sink, values, **options)
    return sink.getvalue()


def png16(values: np.ndarray, extra: Any = ()) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return raw_png(W, H, {1: 0, 3: 2, 4: 6}[values.shape[2]], 16, rows, extra)


@pytest.mark.parametrize("channels", [GREY, RGB, ALPHA])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_png_and_tiff_of_every_depth(bits: int, channels: int) -> None:
    values = samples(bits, channels)
    png = encode(squeezed(values)) if bits == 8 else png16(values)
    if channels == ALPHA and bits == 12:  # alpha is of 16 bits, as PNG says, whatever the colours use
        values[..., 3] <<= 4
        png = png16(values)
        expected = truth(values[..., :3], 12) * (values[..., 3:] / 65535)
    else:
        expected = truth(values, bits)
    close(png, expected)
    extra = {"extrasamples": ["unassalpha"]} if channels == ALPHA else {}
    close(tiff(squeezed(values), **extra), expected)
    independent = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if channels == ALPHA:
        independent = independent[..., [2, 1, 0, 3]]
    np.testing.assert_array_equal(independent, squeezed(values) if channels != RGB else values[..., ::-1])


@pytest.mark.parametrize("channels", [GREY, RGB, ALPHA])
@pytest.mark.parametrize("format", ["BMP", "WEBP", "JPEG2000", "AVIF", "PPM", "GIF"])
def test_other_formats_of_8_bits(format: str, channels: int) -> None:
    if channels == ALPHA and format in ("PPM", "GIF", "BMP"):  # a bitmap of them: see `bitmap`
        return
    values = samples(8, channels)
    image = Image.fromarray(squeezed(values))
    if format == "GIF":
        image = image.quantize(256) if channels == RGB else image
    options = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = encode(image, format, **options.get(format, {}))
    expected = np.array(image.convert("RGB")) if format == "GIF" else truth(values, 8)
    close(data, expected, 6 if format == "AVIF" else 1)


@pytest.mark.parametrize("channels", [GREY, RGB])
@pytest.mark.parametrize("bits", [8, 12])
def test_jpeg_of_8_and_12_bits(bits: int, channels: int) -> None:
    values = samples(bits, channels)
    data = imagecodecs.jpeg8_encode(squeezed(values), level=98, bitspersample=bits, subsampling="444")
    found = decode(data)
    assert np.abs(found - truth(values, bits)).mean() < 1.5
    if bits == 8:
        independent = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.abs(found.astype(int) - independent).max() <= 1


def test_lossless_jpeg_of_16_bits_is_exact() -> None:
    values = samples(16, GREY)
    data = imagecodecs.jpeg8_encode(squeezed(values), lossless=True, bitspersample=16)
    close(data, truth(values, 16))


@pytest.mark.parametrize("white", [1, 100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("channels", [GREY, RGB])
def test_pnm_says_what_its_white_is(channels: int, white: int) -> None:
    values = (samples(16, channels).astype(np.uint32) * white // 65535).astype(np.uint16)
    pixels = values.astype(">u2" if white > 255 else np.uint8).tobytes()
    data = b"P%d\n# a camera's note\n%d %d\n%d\n" % (5 if channels == 1 else 6, W, H, white) + pixels
    close(data, np.broadcast_to(255.0 * values / white, (H, W, 3)), 0.51)
    with pytest.raises(DecodeError, match="truncated"):
        decode(data[:-1])


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("channels", [GREY, RGB])
def test_jpeg2000_of_every_depth(channels: int, bits: int) -> None:
    values = samples(bits, channels)
    data = imagecodecs.jpeg2k_encode(squeezed(values), reversible=True, level=0, bitspersample=bits)
    close(data, truth(values, bits))


# --- TIFF layouts ---------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 16)},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "LZW": {"compression": "lzw"},
    "LZW, predictor": {"compression": "lzw", "predictor": True},
    "deflate, predictor, big-endian": {"compression": "zlib", "predictor": True, "byteorder": ">"},
    "ZSTD": {"compression": "zstd", "predictor": True, "tile": (32, 32)},
    "LZMA": {"compression": "lzma"},
    "packbits": {"compression": "packbits"},
}


@pytest.mark.parametrize("planar", [False, True], ids=["chunky", "planar"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiff_layouts_of_colour(layout: str, bits: int, planar: bool) -> None:
    values = samples(bits, RGB)
    stored = np.moveaxis(values, 2, 0) if planar else values
    if layout == "packbits" and bits == 16:
        stored = stored.astype(np.uint16)
    close(
        tiff(stored, photometric="rgb", planarconfig="separate" if planar else "contig", **LAYOUTS[layout]),
        truth(values, bits),
        0.51,
    )


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiff_layouts_of_grey_that_counts_from_white(layout: str, bits: int) -> None:
    values = samples(bits, GREY)
    data = tiff(((1 << bits) - 1) - values[..., 0], photometric="miniswhite", **LAYOUTS[layout])
    close(data, truth(values, bits))


def packed(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """A TIFF of one strip, whose rows are packed to whole bytes, by hand."""
    rows = b"".join(
        np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)).tobytes() for row in values
    )
    entries = [
        (256, 4, W),
        (257, 4, H),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, H),
        (279, 4, len(rows)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHI", tag, type, 1)
        + struct.pack("<I" if type == 4 else "<HH", *([value] if type == 4 else [value, 0]))
        for tag, type, value in entries
    )
    return b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + directory + bytes(4)


@pytest.mark.parametrize("photometric", [0, 1], ids=["white is 0", "black is 0"])
@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_packed_grey_tiff_says_how_many_bits_it_has(bits: int, photometric: int) -> None:
    values = samples(16, GREY)[..., 0] >> (16 - bits)
    shown = values if photometric else ((1 << bits) - 1) - values
    close(packed(values, bits, photometric), truth(shown[..., None], bits), 0.51)
    dark = packed(values // 4, bits, 1)  # the header tells, not the largest value
    close(dark, truth((values // 4)[..., None], bits), 0.51, bit_depth=8)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("fill", ["zero", "some"])
@pytest.mark.parametrize("tag", ["unspecified", None])
def test_a_fourth_sample_of_tiff_is_no_alpha_unless_the_file_says_so(bits: int, fill: str, tag: str | None) -> None:
    values = samples(bits, ALPHA)
    if fill == "zero":
        values[..., 3] = 0
    data = tiff(values, extrasamples=[tag] if tag else ["unspecified"])
    if tag is None:
        data = untagged(data)
    close(data, truth(values[..., :3], bits), 0.51)


def untagged(data: bytes) -> bytes:
    """The TIFF with its ExtraSamples tag renamed to one that nobody knows."""
    place = data.index(struct.pack("<HHI", 338, 3, 1))
    return data[:place] + struct.pack("<H", 65_000) + data[place + 2 :]


@pytest.mark.parametrize("bits", [8, 16])
def test_associated_alpha_of_tiff_has_multiplied_the_colours_already(bits: int) -> None:
    values = samples(bits, ALPHA)
    values[..., :3] = (values[..., :3] * (values[..., 3:] / ((1 << bits) - 1))).astype(values.dtype)
    close(tiff(values, extrasamples=["assocalpha"]), truth(values[..., :3], bits), 0.51)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [None, "lzma"])
def test_cmyk_tiff(bits: int, compression: str | None) -> None:
    inks = samples(bits, 4)
    shown = inks / ((1 << bits) - 1)
    data = tiff(inks, photometric="separated", compression=compression)
    close(data, 255 * (1 - shown[..., :3]) * (1 - shown[..., 3:]))


def test_jpeg_in_tiff_is_what_pillow_reads() -> None:
    image = Image.fromarray(samples(8, RGB))
    data = encode(image, "TIFF", compression="jpeg", quality=95)
    close(data, np.array(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_compression(compression: str) -> None:
    image = Image.fromarray(samples(8, GREY)[..., 0] > 127)
    close(encode(image, "TIFF", compression=compression), np.array(image.convert("RGB")), 0)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_palette_of_a_tiff_of_whatever_range(bits: int) -> None:
    indices = samples(8, GREY)[..., 0]
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    data = tiff(indices, photometric="palette", colormap=colours * (257 if bits == 16 else 1))
    close(data, colours.T[indices], 0)


UNREADABLE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "float32": (np.float32, {}, r"unsupported: 32-bit grey TIFF of floating-point values.*scale it to 8 or 16 bits"),
    "float64": (np.float64, {}, r"unsupported: 64-bit grey TIFF of floating-point"),
    "int16": (np.int16, {}, r"unsupported: 16-bit grey TIFF of signed integer"),
    "uint32": (np.uint32, {}, r"unsupported: 32-bit grey TIFF.*1 to 16 bits"),
    "mosaic": (np.uint16, {"photometric": "cfa"}, r"unsupported: 16-bit CFA TIFF: a Bayer mosaic \(CFA\)"),
    "CIELAB": (np.uint16, {"photometric": "cielab"}, r"unsupported: 16-bit CIELAB TIFF"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_tiff_that_is_not_read_is_refused_by_its_layout(name: str) -> None:
    dtype, options, reason = UNREADABLE[name]
    values = samples(16, RGB if name == "CIELAB" else GREY)
    with pytest.raises(DecodeError, match=reason):
        decode(tiff(squeezed(values).astype(dtype), **options))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("options", [{"rowsperstrip": 8}, {"tile": (16, 16)}], ids=["strips", "tiles"])
def test_a_tiff_that_lacks_strips_or_tiles_is_refused(options: dict[str, Any], compression: str | None) -> None:
    """tifffile would give black in their place."""
    data = tiff(samples(16, RGB), compression=compression, **options)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        counts = file.pages.first.tags[325 if "tile" in options else 279]
        place, size = counts.valueoffset, 4 if counts.dtype == 4 else 2
    empty = data[:place] + bytes(size) + data[place + size :]
    for broken in (empty, data[: int(len(data) * 0.8)]):
        with pytest.raises(DecodeError, match=r"truncated: \d+ of \d+ (strips|tiles) are not in the file"):
            decode(broken)


# --- alpha and bitmaps ----------------------------------------------------------------------------------------------


def bitmap(colours: np.ndarray, fourth: int, header: int) -> bytes:
    """A bitmap of 32 bits, by hand: header 40 without masks, 108 and 124 with a mask for alpha."""
    pixels = np.dstack([colours[..., ::-1], np.full(colours.shape[:2], fourth, np.uint8)])[::-1].tobytes()
    fields = struct.pack(
        "<IiiHHIIiiII",
        header,
        colours.shape[1],
        colours.shape[0],
        1,
        32,
        3 if header > 40 else 0,
        len(pixels),
        0,
        0,
        0,
        0,
    )
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(header - 40, b"\0") if header > 40 else b""
    place = 14 + len(fields) + len(masks)
    return b"BM" + struct.pack("<IHHI", place + len(pixels), 0, 0, place) + fields + masks + pixels


@pytest.mark.parametrize("header", [40, 108, 124])
@pytest.mark.parametrize("fourth", [0, 255])
def test_a_bitmap_whose_fourth_byte_is_empty_is_opaque(header: int, fourth: int) -> None:
    colours = samples(8, RGB)
    close(bitmap(colours, fourth, header), colours, 0)


def test_alpha_that_a_bitmap_declares_lies_on_black() -> None:
    colours = samples(8, RGB)
    close(bitmap(colours, 51, 124), colours * 0.2)
    close(bitmap(colours, 51, 40), colours, 0)  # without a mask the fourth byte means nothing


def transparent() -> dict[str, bytes]:
    values = np.dstack([samples(8, RGB), np.zeros((H, W), np.uint8)])
    image = Image.fromarray(values)
    return {
        "PNG": encode(image),
        "WEBP": encode(image, "WEBP", lossless=True, exact=True),
        "PNG LA": encode(image.convert("LA")),
        "PNG palette": encode(Image.new("P", (W, H), 0), transparency=0),
        "PNG grey with tRNS": encode(Image.new("L", (W, H), 3), transparency=3),
        "PNG 16": png16(np.dstack([samples(16, RGB), np.zeros((H, W), np.uint16)])),
        "PNG 16 with tRNS": png16(np.full((H, W, 1), 300, np.uint16), [(b"tRNS", b"\x01\x2c")]),
        "TIFF": tiff(values, extrasamples=["unassalpha"]),
        "TIFF associated": tiff(values, extrasamples=["assocalpha"]),
        "TIFF 16": tiff(values.astype(np.uint16) * 257, extrasamples=["unassalpha"]),
        "GIF": encode(Image.new("P", (W, H), 0), "GIF", transparency=0),
        "JPEG2000": encode(image, "JPEG2000"),
    }


@pytest.mark.parametrize("name", transparent())
def test_what_is_transparent_everywhere_fails_and_says_so(name: str) -> None:
    with pytest.raises(DecodeError, match=r"nothing can be seen: alpha is 0.*Save it without alpha"):
        decode(transparent()[name])


def test_one_value_of_16_bits_that_is_transparent_is_black() -> None:
    values = samples(16, RGB)
    data = png16(values, [(b"tRNS", values[3, 5].astype(">u2").tobytes())])
    expected = truth(values, 16)
    expected[(values == values[3, 5]).all(axis=2)] = 0
    close(data, expected)


def test_four_components_of_a_codestream_are_no_alpha() -> None:
    values = samples(8, ALPHA)
    values[..., 3] = 0
    close(encode(Image.fromarray(values), "JPEG2000", no_jp2=True), truth(values[..., :3], 8))


def test_the_first_picture_of_a_gif_and_of_pages() -> None:
    frames = [Image.fromarray(picture(seed)).quantize(64) for seed in (0, 1)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data), np.array(frames[0].convert("RGB")))
