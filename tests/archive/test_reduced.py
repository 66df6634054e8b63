from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from patchead.archive.decode import decode
from patchead.archive.reduced import decode_reduced, shrunk
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


def test_a_small_one_stays_as_it_is() -> None:
    data = picture("JPEG", (90, 50))
    assert np.array_equal(decode_reduced(data, 160), decode(data))


def test_what_cannot_be_decoded_is_refused_as_ever() -> None:
    data = picture("JPEG")
    with pytest.raises(DecodeError, match="truncated"):
        decode_reduced(data[: len(data) // 2], 160)
    with pytest.raises(DecodeError, match="pixels"):
        decode_reduced(data, 160, max_pixels=1000)
