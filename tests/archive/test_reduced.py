from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from patchead.archive.decode import decode
from patchead.archive.reduced import decode_at_least, decode_reduced, shrunk
from patchead.errors import DecodeError


def picture(format: str, size: tuple[int, int] = (640, 400), orientation: int = 1, mode: str = "RGB") -> bytes:
    coarse = np.random.default_rng(1).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    image.save(sink, format, exif=exif)
    return sink.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("format", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")])
def test_it_is_the_whole_picture_in_little(format: str, mode: str, orientation: int) -> None:
    data = picture(format, orientation=orientation, mode=mode)
    found, whole = decode_reduced(data, 160), decode(data)
    assert max(found.shape[:2]) == 160
    assert found.shape == shrunk(whole, 160).shape
    assert np.abs(found.astype(int) - shrunk(whole, 160).astype(int)).mean() < 3


@pytest.mark.parametrize(("side", "eighths"), [(80, 1), (81, 2), (320, 4), (321, 8), (640, 8), (700, 8)])
def test_a_jpeg_is_decoded_at_the_fewest_eighths_that_are_enough(side: int, eighths: int) -> None:
    data = picture("JPEG", orientation=6)
    assert decode_at_least(data, side).shape == (640 * eighths // 8, 400 * eighths // 8, 3)
    if eighths == 8:
        np.testing.assert_array_equal(decode_at_least(data, side), decode(data))


def test_what_is_no_jpeg_is_decoded_as_ever() -> None:
    sink = io.BytesIO()
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(sink, "PNG")
    deep, seen = sink.getvalue(), Image.fromarray(np.full((20, 30, 4), (90, 80, 70, 200), np.uint8))
    np.testing.assert_array_equal(decode_at_least(deep, 8, bit_depth=16), decode(deep, bit_depth=16))
    with pytest.raises(DecodeError, match="12"):
        decode_at_least(deep, 8, bit_depth=12, clip=False)
    sink = io.BytesIO()
    seen.save(sink, "PNG")
    np.testing.assert_array_equal(decode_at_least(sink.getvalue(), 8), decode(sink.getvalue()))


def test_a_small_one_stays_as_it_is() -> None:
    data = picture("JPEG", (90, 50))
    assert np.array_equal(decode_reduced(data, 160), decode(data))


def test_what_cannot_be_decoded_is_refused_as_ever() -> None:
    data = picture("JPEG")
    with pytest.raises(DecodeError, match="truncated"):
        decode_reduced(data[: len(data) // 2], 160)
    with pytest.raises(DecodeError, match="pixels"):
        decode_reduced(data, 160, max_pixels=1000)
