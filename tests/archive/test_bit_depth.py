"""One scale for all images that are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchead.archive.bit_depth import HEAD_BYTES, Largest, largest_of, may_need_scale, settled
from patchead.archive.decode import decode
from patchead.archive.given import Reading, pixels_of, settled_reading
from patchead.archive.pixels import Deep, scaled
from patchead.errors import DecodeError
from tests.helpers.sample_files import encode, grey_16, picture, png

TWELVE = np.array([[4000, 100], [0, 2000]], np.uint16)


def tiff(values: np.ndarray) -> bytes:
    return encode(Image.fromarray(values), "TIFF")


@pytest.mark.parametrize(
    ("images", "bits"),
    [
        ([], None),
        ([None, None], None),
        ([Largest(200, None), Largest(4000, None), None], 12),
        ([Largest(4000, None), Largest(4200, None)], 14),
        ([Largest(100, 12), Largest(90, 12)], 12),
        ([Largest(100, 12), Largest(40_000, 12)], 16),  # its writer shifts, also in the dark one
        ([Largest(100, 12), Largest(90, None)], 8),  # sBIT of some says nothing of the others
        ([Largest(0, None)], 8),
    ],
)
def test_one_answer_for_all(images: list[Largest | None], bits: int | None) -> None:
    assert settled(images) == settled(reversed(images)) == bits


def test_only_images_whose_header_leaves_it_open_are_asked() -> None:
    open_ones = [grey_16(TWELVE), tiff(TWELVE)]
    told = [
        png(),
        encode(picture(), "JPEG"),
        encode(picture(), "TIFF"),
        b"P5 2 2 4095\n" + TWELVE.astype(">u2").tobytes(),
    ]
    for data in open_ones:
        assert may_need_scale(data[:HEAD_BYTES])
        assert largest_of(data, 10**6) == Largest(4000, None)
        assert largest_of(data[: len(data) // 2], 10**6) is None  # damaged: a failed row later
        assert largest_of(data, 3) is None
    assert largest_of(grey_16(TWELVE, [(b"sBIT", b"\x0c")]), 10**6) == Largest(4000, 12)
    assert [largest_of(data, 10**6) for data in told] == [None] * 4


def test_what_the_settled_scale_does_not_hold_is_an_error_and_no_other_picture() -> None:
    for data in (grey_16(TWELVE), tiff(TWELVE)):
        np.testing.assert_array_equal(decode(data, bit_depth=12, clip=False)[..., 0], np.round(TWELVE * (255 / 4095)))
        with pytest.raises(DecodeError, match=r"its largest value 4000 is above the 10 bits .* set `bit_depth`"):
            decode(data, bit_depth=10, clip=False)
        assert decode(data, bit_depth=10).max() == 255
        with pytest.raises(DecodeError, match=r"a 16-bit image in a group of others.*set `bit_depth`"):
            decode(data, bit_depth=None)
    np.testing.assert_array_equal(decode(png(), bit_depth=None), picture())


@pytest.mark.parametrize(("shape", "few"), [((64, 64), 8), ((20, 20), 0), ((400, 500), 20), ((200, 300, 3), 18)])
def test_a_handful_of_hot_pixels_does_not_decide_and_more_do(shape: tuple[int, ...], few: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4000, shape).astype(np.uint16).reshape(-1)
    values[0] = 3999
    places = rng.permutation(values.size - 1)[: few + 1] + 1
    values[places[:few]] = 60_000
    plain, hot = Deep(values.reshape(*shape[:2], -1)), values.copy()
    assert plain.largest in (3998, 3999)
    np.testing.assert_array_equal(scaled(plain, 12, clip=False).max(), 255 if few else 249)
    hot[places] = 60_000
    deep = Deep(hot.reshape(*shape[:2], -1))
    assert deep.largest == 60_000
    with pytest.raises(DecodeError, match="its largest value 60000 is above the 12 bits"):
        scaled(deep, 12, clip=False)


def test_a_list_of_images_has_one_scale(tmp_path: Path) -> None:
    hot = TWELVE.copy()
    hot[1, 0] = 4200
    (tmp_path / "a.tif").write_bytes(tiff(TWELVE // 4))
    images = [tmp_path / "a.tif", grey_16(TWELVE), tiff(hot), png(), picture()]
    reading = settled_reading(images)
    assert reading == Reading(bit_depth=14)
    dark, plain, with_hot = (pixels_of(image, 0, reading)[..., 0].astype(int) for image in images[:3])
    np.testing.assert_allclose(dark * 4, plain, atol=3)
    np.testing.assert_array_equal(with_hot.ravel()[[0, 1, 3]], plain.ravel()[[0, 1, 3]])
    assert settled_reading([png(), picture()]) == Reading()
    assert settled_reading(images, Reading(bit_depth=12)).bit_depth == 12
