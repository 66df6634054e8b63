"""`patchead.score` of a folder or a pattern, and what `Scored.show` draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchead
from patchead.errors import ArchiveError, DecodeError, SettingsError
from patchead.maps.heatmap import colour_range, heatmap, overlay
from patchead.scoring.aggregate import Aggregation, image_scores
from patchead.scoring.position_level import above_position_level
from tests.helpers.e2e_tools import good_images, png, spoiled

SMALL = {"encoder": "timm/test_vit", "weights": "random", "image_size": 64}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    for name, data in {**good_images(6), "more/bad.png": png(spoiled(9)), "notes.txt": b"no image"}.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_a_folder_and_a_pattern_are_lists_of_their_images(photos: Path) -> None:
    folder = patchead.score(photos, **SMALL).table
    assert folder["image_id"].to_pylist() == [*sorted(map(str, photos.glob("*.png"))), str(photos / "more/bad.png")]
    assert folder["rank"].to_pylist()[-1] == 1
    pattern = patchead.score(f"{photos}/good*.png", **SMALL).table
    assert pattern["image_id"].to_pylist() == sorted(map(str, photos.glob("*.png")))
    with pytest.raises(ArchiveError, match=r"no image in .*give a folder of photos, a pattern"):
        patchead.score(photos / "none", **SMALL)


def test_prompts_are_a_folder_or_a_pattern_as_images_are(photos: Path) -> None:
    good = sorted(photos.glob("good*.png"))
    listed = patchead.score(photos, prompts=good, **SMALL).table
    for prompts in (f"{photos}/good*.png", photos):
        given = patchead.score(photos, prompts=prompts, **SMALL).table
        same = prompts != photos  # of the folder, every photo is its own reference
        assert (given.equals(listed)) == same
    with pytest.raises(ArchiveError, match=r"no image in .*give a folder of photos"):
        patchead.score(photos, prompts=photos / "none", **SMALL)


def test_the_brightest_colour_is_that_of_the_nightly_job(photos: Path) -> None:
    scored = patchead.score(photos, **SMALL, patch_threshold=0.9)
    shown = np.array([rank is not None for rank in scored.table["rank"].to_pylist()])
    assert scored.patch_scores.max() < 0.9
    low, high = colour_range(scored.patch_scores, shown, 0.9)
    assert high == 0.9
    place = scored.table["rank"].to_pylist().index(1)
    image = np.asarray(Image.open(scored.table["image_id"][place].as_py()).convert("RGB"))
    heat = heatmap(scored.patch_scores[place], image.shape[1], image.shape[0], max_side=1024, fit="squash")
    np.testing.assert_array_equal(scored.heatmap(place), overlay(image, heat, low, high))


def test_a_corrupt_file_is_a_failed_row_with_its_reason(photos: Path) -> None:
    whole = patchead.score(photos, **SMALL).table
    (photos / "good-0a.png").write_bytes(png(spoiled(3))[:200])
    (photos / "empty.png").write_bytes(b"")
    for more in ({}, {"align": True}):  # the first of the folder is corrupt: the next one is the template
        scored = patchead.score(photos, **SMALL, **more)
        table = scored.table
        failed = [row for row in table.to_pylist() if row["status"] == "failed"]
        assert [Path(row["image_id"]).name for row in failed] == ["empty.png", "good-0a.png"]
        assert all(row["error"] and row["error"][0] != "/" for row in failed)
        assert {(row["score"], row["rank"], row["width"], row["is_anomalous"]) for row in failed} == {(None,) * 4}
        if not more:
            assert table.filter([row not in failed for row in table.to_pylist()])["score"].equals(whole["score"])
        pictures = scored.heatmaps()
        assert len(pictures) == 9
        assert len(np.unique(pictures[0])) == 1
        assert scored.regions(0) == []
    with pytest.raises(DecodeError, match=r"none of 5 images can be decoded: "):
        patchead.score([b"no image"] * 5, **SMALL)


def test_the_highest_scores_are_drawn_with_their_heatmaps(photos: Path) -> None:
    scored = patchead.score(photos, **SMALL)
    sheet = scored.show(3, height=96)
    assert sheet.size == (3 * 96 + 2 * 4, 2 * 96 + 4 + 16)
    drawn = np.asarray(sheet).astype(int)
    photo, heat = drawn[16:112, :96], drawn[116:, :96]
    assert (photo[32:64, 32:64, 0] - photo[32:64, 32:64, 1]).mean() > 150  # the planted square, on the left
    assert np.abs(heat - photo).mean() > 5
    assert scored.show(99).width > sheet.width


def test_what_all_images_have_at_one_place_is_taken_off() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(90, 110, (64, 64, 3), dtype=np.uint8) for _ in range(12)]
    plain, found = (patchead.score(images, **SMALL, position_level=level) for level in (False, True))
    expected = above_position_level(plain.patch_scores.reshape(12, -1))
    np.testing.assert_allclose(found.patch_scores.reshape(12, -1), expected, atol=1e-6)
    assert found.table["score"].to_pylist() == pytest.approx(image_scores(expected, 0.01).tolist(), abs=1e-6)
    by_rule = patchead.score(images, **SMALL, aggregation=Aggregation(position_level=True))
    assert by_rule.table.equals(found.table)
    with pytest.raises(SettingsError, match=r"position_level has no effect with aggregation"):
        patchead.score(images, **SMALL, position_level=True, aggregation=Aggregation())
    with pytest.raises(SettingsError, match=r"`position_level` and `align` cannot be combined"):
        patchead.score(images, **SMALL, aggregation=Aggregation(position_level=True), align=True)
    prompted = [
        patchead.score(images[6:], **SMALL, prompts=images[:6], aggregation=Aggregation(position_level=level))
        for level in (False, True)
    ]
    assert prompted[0].table.equals(prompted[1].table)  # as repeats, of a rule


def test_images_that_share_a_region_have_one_number_and_a_threshold_makes_the_boxes() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(90, 110, (64, 64, 3), dtype=np.uint8) for _ in range(40)]
    for place in (3, 11, 19, 27):
        images[place][16:32, 16:32] = np.arange(16, dtype=np.uint8)[:, None, None] * 16
    plain, found = (patchead.score(images, **SMALL, repeats=repeats) for repeats in (False, True))
    assert plain.table["repeat_group"].null_count == 40
    assert np.flatnonzero(np.array(found.table["repeat_group"].to_pylist(), float) == 1).tolist() == [3, 11, 19, 27]
    own = [min(scored.table["score"][place].as_py() for place in (3, 11, 19, 27)) for scored in (plain, found)]
    assert own[1] > own[0]
    boxes = patchead.score(images, **SMALL, patch_threshold=0.125).regions(3)
    assert {box.threshold for box in boxes} == {0.125}
    with pytest.raises(SettingsError, match=r"repeats needs the distances of every patch, and .*schedule bounded"):
        patchead.score(images, **SMALL, repeats=True, schedule="bounded")
