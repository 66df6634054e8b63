"""What JPEG's losses leave of a picture's blocks."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from patchead.archive import jpeg
from patchead.archive.blocks import NOTHING, SIZE, beyond_losses, blocks_of, steps_in
from patchead.archive.decode import decode
from tests.helpers.sample_files import encode
from tests.helpers.sample_photos import real_photos

FRAME, OTHER = real_photos(2)


def jpeg_of(image: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "JPEG", **options)
    return sink.getvalue()


def blocks(data: bytes) -> np.ndarray:
    return blocks_of(decode(data), data)


@pytest.mark.parametrize(
    "options", [{"quality": 5}, {"quality": 40, "progressive": True}, {"qtables": [[300] * 64, [9] * 64]}], ids=str
)
def test_the_steps_of_a_file_are_those_that_pillow_reads(options: dict[str, object]) -> None:
    data = jpeg_of(FRAME, **options)
    expected = Image.open(io.BytesIO(data)).quantization[0]
    np.testing.assert_array_equal(jpeg.steps_of(data), expected)
    assert jpeg.steps_of(data[:20]) is None


@pytest.mark.parametrize("quality", [10, 30, 60, 90])
def test_files_of_one_frame_differ_by_their_losses_and_those_of_two_by_more(quality: int) -> None:
    one = blocks(jpeg_of(FRAME, quality=quality))
    same = [jpeg_of(FRAME, quality=again) for again in (20, 50, 95)] + [encode(Image.fromarray(FRAME), "PNG")]
    assert (beyond_losses(one, np.stack([blocks(data) for data in same])) <= 0.002).all()
    others = [jpeg_of(OTHER, quality=again) for again in (20, 50, 95)]
    assert (beyond_losses(one, np.stack([blocks(data) for data in others])) >= 0.04).all()


def test_what_cannot_be_compared_is_beyond_all_losses() -> None:
    one, saved_alike = blocks(jpeg_of(FRAME, quality=60)), blocks(jpeg_of(OTHER, quality=60))
    smaller, black = blocks(jpeg_of(FRAME[:-8], quality=50)), blocks_of(np.zeros_like(FRAME))
    assert beyond_losses(one, np.stack([smaller, black, NOTHING])).tolist() == [1, 1, 1]
    assert len(np.unique(steps_in(np.stack([one, saved_alike])), axis=0)) == 1
    assert blocks_of(FRAME[:7]) is NOTHING
    assert one.shape == (SIZE,)
