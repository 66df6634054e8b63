"""Resizing gives Pillow's pixels, strip by strip, and of large pictures those of the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from patchead.archive import resize
from patchead.archive.resize import SHRINK, resized


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((301, 407), (30, 44), None),  # means of 6 x 3 pixels, fewer at the ends
        ((300, 400), (50, 50), None),
        ((300, 100), (100, 10), None),  # reduced along one side alone
        ((40, 50), (60, 60), None),
        ((301, 407), (28, 28), (53.0, 0.0, 354.0, 301.0)),
        ((402, 301), (28, 28), (0.0, 50.5, 301.0, 351.5)),
        ((1, 3000), (7, 2), None),
        ((900, 2), (1, 3), None),
    ],
)
@pytest.mark.parametrize("strip", [1, 5000, resize._STRIP])
def test_resized_as_pillow_does_it(
    shape: tuple[int, int],
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None,
    strip: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resize, "_STRIP", strip)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=SHRINK)
    np.testing.assert_array_equal(resized(image, size, box), np.asarray(expected))


def cubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = -1/2 (Keys 1981), that of Pillow."""
    x, a = np.abs(x), -0.5
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def weights(before: int, after: int) -> np.ndarray:
    """float64 (after, before): antialias is a kernel as much wider as pixels become fewer."""
    scale = before / after
    centres, places = (np.arange(after) + 0.5) * scale, np.arange(before) + 0.5
    found = cubic((places - centres[:, None]) / scale)
    return found / found.sum(axis=1, keepdims=True)


def by_definition(image: np.ndarray, width: int, height: int) -> np.ndarray:
    across, down = weights(image.shape[1], width), weights(image.shape[0], height)
    return np.einsum("yh,hwc,xw->yxc", down, image.astype(np.float64), across)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture whose curves do not leave 0 to 255, where they would be cut between the two passes."""
    small = np.random.default_rng(0).integers(60, 196, (height // 6, width // 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).clip(40, 215)


@pytest.mark.parametrize(
    "laid_out",
    [
        np.ascontiguousarray,
        lambda image: np.dstack([image, image[..., :1]])[..., :3],  # four bytes a pixel, as in a room
        lambda image: np.rot90(np.rot90(image, 1).copy(), -1),
        lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),  # not to be written to
    ],
)
def test_a_large_picture_is_resampled_as_it_is_defined(laid_out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "LARGE", 1)
    image = smooth(301, 407)
    before = laid_out(image)
    found = resized(before, (44, 30))
    assert (found.shape, found.dtype, found.flags.c_contiguous) == ((30, 44, 3), np.uint8, True)
    np.testing.assert_allclose(found, by_definition(image, 44, 30), atol=1.01)  # rounded twice
    pillow = Image.fromarray(image).resize((44, 30), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(found.astype(int), np.asarray(pillow).astype(int), atol=1)
    np.testing.assert_array_equal(before, image)


def test_of_a_large_picture_whole_pixels_become_the_centre_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "LARGE", 1)
    image = smooth(300, 421)
    expected = by_definition(image[:, 60:360], 28, 28)
    np.testing.assert_allclose(resized(image, (28, 28), (60.5, 0.0, 360.5, 300.0)), expected, atol=1.01)


@pytest.mark.usefixtures("threads_put_back")
def test_no_pixel_of_a_large_picture_depends_on_threads() -> None:
    image, found = smooth(2004, 2004), []
    assert image.shape[0] * image.shape[1] >= resize.LARGE
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(resized(image, (112, 112)))
    np.testing.assert_array_equal(*found)
