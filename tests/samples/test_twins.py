"""Images that show the same pixels in different bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from patchead.archive.blocks import blocks_of
from patchead.archive.decode import decode, fit
from patchead.samples.twins import LOOK, look, named_as_references, renamed, renamed_prompts, twins
from tests.helpers.e2e_tools import texture
from tests.helpers.sample_photos import real_photos


def encoded(image: np.ndarray, format: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, format, **options)
    return sink.getvalue()


def looks_of(files: list[bytes], side: int = 64) -> np.ndarray:
    return look(np.stack([fit(decode(data), side, "squash") for data in files]))


PLAIN = [texture(seed, 96) for seed in range(10)]


@pytest.mark.parametrize(
    "again",
    [
        ("PNG", {"compress_level": 1}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 75}),
        ("WEBP", {"quality": 90}),
    ],
    ids=str,
)
def test_a_photo_that_was_encoded_again_is_a_twin_of_itself_alone(again: tuple[str, dict[str, object]]) -> None:
    files = [encoded(image, "BMP") for image in PLAIN] + [encoded(PLAIN[3], again[0], **again[1])]
    assert twins(looks_of(files)).tolist() == [*range(10), 3]


def test_a_preview_beside_each_photo() -> None:
    small = [np.asarray(Image.fromarray(image).resize((72, 72), Image.Resampling.BICUBIC)) for image in PLAIN]
    files = [encoded(image, "BMP") for image in PLAIN] + [encoded(image, "JPEG", quality=90) for image in small]
    assert twins(looks_of(files)).tolist() == [*range(10), *range(10)]


def test_a_stuck_camera_in_half_of_a_night() -> None:
    stuck = [encoded(PLAIN[0], "JPEG", quality=quality) for quality in range(90, 100) for _ in range(2)]
    others = [encoded(texture(100 + seed, 96), "PNG") for seed in range(20)]
    assert twins(looks_of(stuck + others)).tolist() == [0] * 20 + [*range(20, 40)]


def seen(files: list[bytes], side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Looks and blocks."""
    decoded = [decode(data) for data in files]
    looks = look(np.stack([fit(image, side, "squash") for image in decoded]))
    return looks, np.stack([blocks_of(*of) for of in zip(decoded, files, strict=True)])


def found_in(files: list[bytes], side: int = 64) -> list[int]:
    looks, blocks = seen(files, side)
    return twins(looks, blocks=blocks).tolist()


@pytest.mark.parametrize("side", [64, 224])
def test_a_stuck_frame_saved_again_with_strong_and_varying_losses(side: int) -> None:
    """Real photos; of the frame, and of others, each file has another quality."""
    frame, *others = real_photos(13)
    qualities = [20, 95, 30, 88, 40, 80, 50, 70, 60, 25, 75, 35]
    stuck = [encoded(frame, "JPEG", quality=quality) for quality in qualities]
    rest = [encoded(image, "JPEG", quality=quality) for image, quality in zip(others, qualities, strict=True)]
    assert found_in(stuck + rest, side) == [0] * 12 + [*range(12, 24)]
    defect = frame.copy()
    defect[140:160, 100:130] = 230
    with_defect = [encoded(defect, "JPEG", quality=quality) for quality in (45, 65)]
    assert found_in([*stuck, *with_defect, *rest], side) == [0] * 12 + [12] * 2 + [*range(14, 26)]


def test_alike_photos_with_losses_of_two_qualities_are_no_frame() -> None:
    """A scene that stands still, noise of each exposure, two qualities by turns: a pair by chance at most."""
    rng = np.random.default_rng(0)
    scene = texture(0, 64).astype(float)
    stills = [np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8) for _ in range(15)]
    files = [encoded(image, "JPEG", quality=(90, 75)[number % 2]) for number, image in enumerate(stills)]
    files += [encoded(np.rot90(image), "JPEG", quality=(75, 90)[number % 2]) for number, image in enumerate(stills)]
    assert np.bincount(found_in(files)).max() <= 2


def test_images_that_are_merely_alike_are_no_twins() -> None:
    """All photos of one scene that stands still, with a little noise; and one with a small defect."""
    rng = np.random.default_rng(0)
    scene = texture(0, 64).astype(float)
    stills = [np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8) for _ in range(30)]
    assert twins(look(np.stack(stills))).tolist() == [*range(30)]
    turned = [np.ascontiguousarray(np.rot90(image)) for image in stills[:15]]
    assert twins(look(np.stack([*stills[15:], *turned]))).tolist() == [*range(30)]
    defect = PLAIN[0].copy()
    defect[40:50, 40:50] = 255
    files = [encoded(image, "PNG") for image in [*PLAIN, defect]]
    assert twins(looks_of(files, 96)).tolist() == [*range(11)]


def test_plain_images_have_nothing_to_know_them_by() -> None:
    files = [encoded(np.zeros((40 + number, 40, 3), np.uint8), "PNG") for number in range(6)]
    assert twins(looks_of(files)).tolist() == [*range(6)]
    assert twins(np.empty((0, LOOK), np.uint8)).tolist() == []


def test_many_images_take_seconds_and_no_square_of_memory() -> None:
    found = np.random.default_rng(0).integers(0, 256, (3000, LOOK)).astype(np.uint8)
    found[2999] = found[5]
    expected = np.arange(3000)
    expected[2999] = 5
    np.testing.assert_array_equal(twins(found), expected)


def test_twins_get_one_content_and_twins_of_a_prompt_that_of_the_prompt() -> None:
    looks = looks_of([encoded(PLAIN[n], "PNG") for n in (0, 1, 0, 2)])
    assert renamed(["a", "b", "c", "d"], looks) == ["a", "b", "a", "d"]
    theirs = looks_of([encoded(PLAIN[n], "TIFF") for n in (5, 1, 6, 7, 8)])
    assert named_as_references(["a", "b", "c", "d"], looks, [*"vwxyz"], theirs) == ["a", "w", "c", "d"]


@pytest.mark.parametrize("photos", [1, 2, 3])
@pytest.mark.parametrize("again", [("BMP", {}), ("JPEG", {"quality": 95}), ("JPEG", {"quality": 60})], ids=str)
def test_prompts_that_were_saved_twice_count_once_however_few(photos: int, again: tuple[str, dict[str, int]]) -> None:
    files = [encoded(image, "PNG") for image in PLAIN[:photos]]
    files += [encoded(image, again[0], **again[1]) for image in PLAIN[:photos]]
    names = [*"abc"[:photos]]
    assert renamed_prompts([*names, *"xyz"[:photos]], *seen(files)) == names * 2


def test_different_prompts_are_different_however_alike() -> None:
    rng = np.random.default_rng(0)
    scene = texture(0, 64).astype(float)
    stills = [np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8) for _ in range(4)]
    for images in (stills, stills[:2], PLAIN[:2], PLAIN[:1]):
        files = [encoded(image, "PNG") for image in images]
        assert renamed_prompts([*"abcd"[: len(images)]], *seen(files)) == [*"abcd"[: len(images)]]
    flat = [encoded(np.full((40, 40, 3), grey, np.uint8), "PNG") for grey in (90, 90)]
    assert renamed_prompts(["a", "b"], *seen(flat)) == ["a", "b"]
