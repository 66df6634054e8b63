"""JPEG: decoded by simplejpeg, which hears what libjpeg says of data that end early; 12 and 16 bits by imagecodecs."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import takewhile
from typing import Any

import numpy as np
from PIL import Image

from patchead.archive.damage import check_size, damage_told
from patchead.archive.pixels import Deep
from patchead.archive.room import Room
from patchead.errors import DecodeError

_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # no byte of the picture, restart or filling
_START_OF_PICTURE, _END_OF_PICTURE, _SCAN = 0xD8, 0xD9, 0xDA
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_SCAN_HEADER = 6  # bytes behind its length, at least: of one colour
_HUFFMAN, _QUANTIZATION = 0xC4, 0xDB
_ZIGZAG = sorted(range(64), key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8))
_ZEROS = 64
_OTHER_DATA = bytes(range(0x35, 0x75)) * 4  # not what libjpeg puts in the place of what is missing
_OTHER_DATA += b"".join(
    bytes([0xFF, restart]) + _OTHER_DATA for restart in range(0xD0, 0xD8)
)  # which may be waited for


def is_jpeg(data: bytes) -> bool:
    """Tell a JPEG by its first bytes."""
    return data[:3] == b"\xff\xd8\xff"


def completed(data: bytes) -> bytes:
    """Cut off what a camera appended to a file, or give one an end marker that lacks it.

    The marker takes the place of zeros that a disk may have filled up. A file that ends in a marker is left as it is.
    """
    if data.endswith(_END):
        return data
    marker, place = _last_segment(data)
    if marker == _END_OF_PICTURE:
        return data[: place + len(_END)]
    bare = data.rstrip(b"\0")
    in_a_scan = len(bare) >= _behind(data, place)
    return data[: len(bare) + in_a_scan] + _END  # one zero may be the last of the picture


def pixels_of_jpeg(
    data: bytes, image: Image.Image, room: Room | None = None, *, smooth_colour: bool = True
) -> np.ndarray:
    """Decode grey and colour JPEG of 8 bits, as stored: RGB uint8 (H, W, 3); ``image`` is Pillow's of its header.

    The pixels lie in ``room`` where there is one. Colour that was stored at half the size is interpolated, or without
    ``smooth_colour`` repeated: a tenth sooner, and hardly to be seen where the picture is then made much smaller.

    Raises:
        DecodeError: damaged, or its data end before the picture does.
    """
    import simplejpeg

    refuse_unsaid(data)
    how: dict[str, Any] = {} if room is None else {"colorspace": "RGBX", "buffer": room.of(*image.size)}
    with suppress(ValueError):  # libjpeg has something to say
        return simplejpeg.decode_jpeg(data, fastupsample=not smooth_colour, **how)[..., :3]
    return _by_pillow(data, image)


def refuse_incomplete(data: bytes, image: Image.Image) -> None:
    """Refuse a JPEG of inks, which `pixels_of_jpeg` does not take, where its data end too early.

    Raises:
        DecodeError: damaged, or they do.
    """
    import simplejpeg

    refuse_unsaid(data)
    try:
        simplejpeg.decode_jpeg(data, colorspace="CMYK")
    except ValueError:
        _by_pillow(data, image)


def refuse_unsaid(data: bytes) -> None:
    """Refuse a JPEG that was `completed` and lacks what libjpeg does without in silence: scans, data that are zeros.

    Raises:
        DecodeError: it does.
    """
    _refuse_zeros_before_end(data)
    _refuse_missing_scans(data)


def _by_pillow(data: bytes, image: Image.Image) -> np.ndarray:
    """What libjpeg warns of, Pillow takes or refuses."""
    with damage_told():
        found = np.asarray(image)
    _refuse_cut_off(data, found, lambda changed: np.asarray(Image.open(BytesIO(changed), formats=["JPEG"])))
    return np.array(image.convert("RGB"))


def _refuse_cut_off(data: bytes, found: np.ndarray, decoded: Callable[[bytes], np.ndarray]) -> None:
    """Refuse data that end before the picture does: other data behind them would change its rows (H, W, …)."""
    if any(marker in _ARITHMETIC for marker, _ in _segments(data)):  # its last zeros are left out, for many blocks
        return
    _, end = _last_segment(data)
    own = data[:end].rstrip(b"\xff")  # half a marker, or what fills up before one: with other data another marker
    with damage_told():
        other = decoded(own + _OTHER_DATA + data[len(own) :])
    for row, (one, another) in enumerate(zip(found, other, strict=True)):
        if not np.array_equal(one, another):
            raise DecodeError(f"truncated: cut off, its data end at row {row} of {len(found)}")


def _refuse_zeros_before_end(data: bytes) -> None:
    """Refuse zeros in the place of data, where they are not the codes of plain blocks: files filled up, then closed."""
    if data[-_ZEROS - 2 : -2].strip(b"\0"):
        return
    _, last = _last_segment(data)
    if data[last - _ZEROS : last].strip(b"\0"):  # the zeros are of what a camera appended
        return
    shortest = []  # what a code of zeros means, in each table
    for marker, start in takewhile(lambda segment: segment[0] != _SCAN, _segments(data)):
        place, end = start + 4, _behind(data, start)
        while marker == _HUFFMAN and place + 18 <= min(end, len(data)):
            shortest.append(data[place + 17])
            place += 17 + sum(data[place + 1 : place + 17])
    if any(shortest):
        raise DecodeError("truncated: cut off and filled up, as its data end in zeros")


def _refuse_missing_scans(data: bytes) -> None:
    """Refuse a JPEG without the scans that bring a colour, or its last bits: it would be a blurred picture."""
    left, progressive = dict[int, set[int]](), False
    for marker, place in _segments(data):
        end = _behind(data, place)
        header = data[place + 4 : end]
        if marker in _START_OF_FRAME:
            progressive = marker in _PROGRESSIVE
            left = {component: set(range(64 if progressive else 1)) for component in header[6::3]}
        elif marker == _SCAN:
            if end > len(data) - len(_END) or len(header) < _SCAN_HEADER:
                raise DecodeError("truncated: cut off in the header of a scan")
            for component in left.keys() & set(header[1:-3:2]):
                left[component] -= _brought(header, progressive=progressive)
            if not any(left.values()):
                return
    if missing := sum(bool(of_it) for of_it in left.values()):
        raise DecodeError(f"truncated: cut off, a JPEG that lacks the last scans of {missing} of {len(left)} colours")


def _brought(header: bytes, *, progressive: bool) -> set[int]:
    """The coefficients that are whole after a scan; not progressive, a colour has one scan, and is counted as one."""
    first, last, bits = header[-3:]
    if not progressive:
        return {0}
    return set() if bits & 0x0F else set(range(first, last + 1))


def frame_of(data: bytes) -> tuple[int, int, int, int] | None:
    """Read (bits, width, height, components) of the first frame header; None where there is none."""
    for marker, place in _segments(data):
        if marker in _START_OF_FRAME and place + 10 <= len(data):
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            return data[place + 4], width, height, data[place + 9]
    return None


def steps_of(data: bytes) -> np.ndarray | None:
    """Read by what the 64 coefficients of its brightness were rounded, row by row: int64 (64,); None where untold."""
    for marker, start in _segments(data):
        place, end = start + 4, _behind(data, start)
        while marker == _QUANTIZATION and place < min(end, len(data)):
            wide, number = divmod(data[place], 16)
            values = np.frombuffer(data[place + 1 : place + 1 + 64 * (1 + bool(wide))], ">u2" if wide else np.uint8)
            if number == 0 and len(values) == 64:
                found = np.empty(64, np.int64)
                found[_ZIGZAG] = values
                return found
            place += 1 + 64 * (1 + bool(wide))
    return None


def _last_segment(data: bytes) -> tuple[int, int]:
    """Marker and place of the last segment: the end marker, or the segment that is cut off."""
    return (deque(_segments(data), maxlen=1) or [(0, len(data))])[0]


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment up to the end marker; what lies between them is skipped, as libjpeg does."""
    place = len(_END)
    while found := _MARKER.search(data, place):
        place = found.start()
        marker = data[place + 1]
        yield marker, place
        if marker in (_START_OF_PICTURE, _END_OF_PICTURE):
            return
        place = _behind(data, place)


def _behind(data: bytes, place: int) -> int:
    """Where the segment that begins at ``place`` ends, by its length, which counts itself."""
    return place + 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))


def read_deep_jpeg(data: bytes, frame: tuple[int, int, int, int], max_pixels: int) -> Deep:
    """Read a JPEG of more than 8 bits (extended or lossless): its header tells its largest value.

    Raises:
        DecodeError: damaged, cut off, too large, or neither grey nor colour.
    """
    import imagecodecs

    bits, width, height, components = frame
    check_size(width, height, max_pixels)
    if components not in (1, 3):
        raise DecodeError(f"unsupported: {bits}-bit JPEG of {components} components; allowed are grey and colour")
    data = completed(data)
    refuse_unsaid(data)
    with damage_told():
        values: Any = imagecodecs.jpeg_decode(data)
    _refuse_cut_off(data, values, imagecodecs.jpeg_decode)  # it never says so
    values = values[..., None] if values.ndim == 2 else values
    if values.dtype != np.uint16 or values.shape != (height, width, components):
        raise DecodeError(f"damaged: a {bits}-bit JPEG that gives {values.dtype} {values.shape}")
    return Deep(values, white=(1 << bits) - 1)
