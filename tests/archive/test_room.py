"""Pictures in one room have the pixels that each has alone, and never another's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from patchead.archive.decode import FITS, decode, fit
from patchead.archive.room import Room, with_fourth_byte
from patchead.errors import DecodeError

_RANDOM = np.random.default_rng(0)


def _photo(height: int, width: int, mode: str = "RGB", **options: int | bytes) -> bytes:
    small = _RANDOM.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(small).resize((width, height)).convert(mode).save(sink, "JPEG", **options)
    return sink.getvalue()


def _turned() -> bytes:
    notes = Image.Exif()
    notes[0x0112] = 6
    return _photo(500, 700, exif=notes.tobytes())


_FILES = {
    "large": lambda: _photo(1201, 1603),
    "small": lambda: _photo(90, 61),
    "grey": lambda: _photo(640, 800, "L"),
    "inks": lambda: _photo(300, 200, "CMYK"),
    "progressive": lambda: _photo(400, 500, progressive=1),
    "turned": _turned,
}


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchead.archive.decode.LARGE", 1)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("mode", FITS)
def test_one_after_the_other_each_has_the_pixels_that_it_has_alone(mode: str) -> None:
    room, files = Room(), [make() for make in _FILES.values()]
    fitted = []
    for data in files + files[::-1]:
        alone = decode(data)
        pixels = decode(data, room=room)
        np.testing.assert_array_equal(pixels, alone)
        fitted.append((fit(pixels, 96, mode), fit(alone, 96, mode)))
    for in_the_room, alone in fitted:  # what was fitted stays when the next picture takes the room
        np.testing.assert_array_equal(in_the_room, alone)


@pytest.mark.usefixtures("all_large")
def test_a_damaged_picture_leaves_nothing_to_the_next() -> None:
    room, whole = Room(), _photo(800, 900)
    decode(_photo(1000, 1000), room=room)
    with pytest.raises(DecodeError, match="truncated"):
        decode(whole[: len(whole) // 2], room=room)
    np.testing.assert_array_equal(decode(whole, room=room), decode(whole))


def test_a_small_picture_has_pixels_of_its_own() -> None:
    room = Room()
    first, second = (decode(_photo(800, 900), room=room) for _ in range(2))
    assert first.flags.c_contiguous, "Pillow resizes it without leaving out each fourth byte"
    assert not np.shares_memory(first, second)


@pytest.mark.usefixtures("all_large")
def test_memory_is_taken_once() -> None:
    room = Room()
    first, second = (decode(_photo(800, 900), room=room) for _ in range(2))
    assert np.shares_memory(first, second)
    assert not np.shares_memory(second, decode(_photo(900, 900), room=room)), "it was too small"


def test_the_fourth_byte_is_only_seen_where_it_is_the_pictures_own() -> None:
    four = _RANDOM.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    for image in (four[..., :3], four[3:17, :, :3]):
        found = with_fourth_byte(image)
        assert found is not None
        np.testing.assert_array_equal(found[..., :3], image)
    others = [
        four[..., 1:],  # the last one's lies behind the array
        four[:, 5:25, :3],  # rows of others between
        four[:, ::-1, :3],
        four[..., 2::-1],
        np.rot90(four)[..., :3],
        four[:0, :, :3],
        np.ascontiguousarray(four[..., :3]),
    ]
    assert [with_fourth_byte(image) for image in others] == [None] * len(others)
