"""Heatmap files of real originals: what is drawn, and what happens when an original is not there any more."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchead.archive.decode import decode
from patchead.errors import LakeError
from patchead.maps.heatmap import colour_range, heatmap, overlay
from patchead.schema import OK
from patchead.scoring.verdict import VerdictSettings, judge
from tests.helpers.sample_files import parquet, tar, write
from tests.helpers.scored_nights import FOLDER, GROUP, HEIGHT, HOT, WIDTH, Night, photo, scored_night

COUNT, BAD = 8, 3
NAMES = [f"{number}.png" for number in range(COUNT)]
NOTE = "scored, but its heatmap could not be drawn: "


def loose(root: Path, format: str = "PNG") -> Night:
    write(root / "archive", {f"{FOLDER}/{name}": photo(number, format) for number, name in enumerate(NAMES)})
    return scored_night(root / "archive", root / "lake", [f"{FOLDER}/{NAMES[BAD]}"])


def in_tar(root: Path) -> Night:
    members = [(name, photo(number)) for number, name in enumerate(NAMES)]
    write(root / "archive", {f"{FOLDER}/a.tar": tar(members)})
    return scored_night(root / "archive", root / "lake", [f"{FOLDER}/a.tar#{NAMES[BAD]}"])


def in_parquet(root: Path) -> Night:
    rows = {"id": NAMES, "image": [photo(number) for number in range(COUNT)]}
    write(root / "archive", {f"{FOLDER}/a.parquet": parquet(rows, row_group_size=3)})
    return scored_night(root / "archive", root / "lake", [f"{FOLDER}/a.parquet#{NAMES[BAD]}"])


def original(root: Path, name: str = NAMES[BAD]) -> Path:
    return root / "archive" / FOLDER / name


@pytest.mark.parametrize("format", ["png", "webp"])
@pytest.mark.parametrize("archive", [loose, in_tar, in_parquet])
def test_the_hot_patch_is_hot_and_the_rest_stays_the_photo(
    tmp_path: Path, archive: Callable[[Path], Night], format: str
) -> None:
    night = archive(tmp_path)
    scores, regions = night.explain(heatmaps="all", format=format)
    assert scores["error"].null_count == COUNT
    top, left = HOT[0] * 6, HOT[1] * 6
    for number, row in enumerate(scores.to_pylist()):
        assert row["heatmap_path"].endswith(f".{format}")
        found = night.picture(row["heatmap_path"])
        assert (found.format, found.mode, found.size) == (format.upper(), "RGB", (WIDTH, HEIGHT))
        drawn, kept = (np.asarray(i).astype(int) for i in (found, Image.open(io.BytesIO(photo(number)))))
        warmth = drawn[..., 0] - drawn[..., 2]  # red above blue: the photo is grey, and so is what is normal
        assert (warmth[top + 1 : top + 5, left + 1 : left + 5].mean() > 40) == (number == BAD)
        assert abs(warmth[:, :20].mean()) < 5
        assert abs(drawn[:, :20].mean() - kept[:, :20].mean()) < 8
    (region,) = regions.to_pylist()
    assert region["image_id"] in night.hot
    assert region["x"] <= left <= left + 6 <= region["x"] + region["width"]
    assert region["y"] <= top <= top + 6 <= region["y"] + region["height"]


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_drawn_from_less_of_it_and_looks_the_same(tmp_path: Path, orientation: int) -> None:
    upright = Image.open(io.BytesIO(photo(BAD))).resize((10 * WIDTH, 10 * HEIGHT), Image.Resampling.BICUBIC)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose.ROTATE_90)
    exif, sink = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored.save(sink, "JPEG", exif=exif, quality=95)
    files = {name: photo(number) for number, name in enumerate(NAMES) if number != BAD} | {"a.jpg": sink.getvalue()}
    write(tmp_path / "archive", {f"{FOLDER}/{name}": data for name, data in files.items()})
    night = scored_night(tmp_path / "archive", tmp_path / "lake", [f"{FOLDER}/a.jpg"])
    scores, _ = night.explain(max_side=32)
    patches, place = night.patches[GROUP], night.groups[GROUP]["image_id"].to_pylist().index(f"{FOLDER}/a.jpg")
    verdict = judge(patches.max(axis=(1, 2)), VerdictSettings())
    heat = heatmap(patches[place], WIDTH, HEIGHT, max_side=32)
    whole = overlay(decode(sink.getvalue()), heat, *colour_range(patches, verdict.flagged, verdict.threshold_score))
    (uri,) = scores["heatmap_path"].drop_null().to_pylist()
    difference = np.abs(np.asarray(night.picture(uri)).astype(int) - whole)
    assert whole.shape == (24, 32, 3)
    assert difference.mean() < 1
    assert difference.max() < 8


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_each_fit_is_drawn_where_it_was_taken_from(tmp_path: Path, fit: str) -> None:
    night = loose(tmp_path)
    scores, _ = night.explain(fit=fit)
    patches = night.patches[GROUP]
    verdict = judge(patches.max(axis=(1, 2)), VerdictSettings())
    colours = colour_range(patches, verdict.flagged, verdict.threshold_score)
    heat = heatmap(patches[BAD], WIDTH, HEIGHT, max_side=1024, fit=fit)
    expected = overlay(np.asarray(Image.open(io.BytesIO(photo(BAD)))), heat, *colours)
    (uri,) = scores["heatmap_path"].drop_null().to_pylist()
    np.testing.assert_array_equal(np.asarray(night.picture(uri)), expected)


def test_large_photos_are_drawn_scaled_down_and_regions_are_not(tmp_path: Path) -> None:
    night = loose(tmp_path)
    scores, regions = night.explain(max_side=32)
    (uri,) = scores["heatmap_path"].drop_null().to_pylist()
    assert night.picture(uri).size == (32, 24)
    (region,) = regions.to_pylist()
    assert region["x"] > 24


def check_that_one_heatmap_is_missing(night: Night, settings: dict[str, object], spoil: Callable[[], None]) -> str:
    """Explain before and after ``spoil``: all else in the tables stays. Returns what the row of the hot image says."""
    before = night.explain(heatmaps="all")
    spoil()
    scores, regions = night.explain(heatmaps="all", **settings)
    missing = [row for row in scores.to_pylist() if row["heatmap_path"] is None]
    assert regions.equals(before[1])
    assert set(regions["image_id"].to_pylist()) == set(night.hot)
    unchanged = [name for name in scores.column_names if name not in ("heatmap_path", "error")]
    assert scores.select(unchanged).equals(before[0].select(unchanged))
    assert scores["error"].is_valid().to_pylist() == scores["heatmap_path"].is_null().to_pylist()
    (row,) = missing
    assert (row["image_id"] in night.hot, row["status"], row["is_anomalous"], row["rank"]) == (True, OK, True, 1)
    assert row["error"].startswith(NOTE)
    return row["error"].removeprefix(NOTE)


def test_an_original_that_was_deleted(tmp_path: Path) -> None:
    night, path = loose(tmp_path), original(tmp_path)
    why = check_that_one_heatmap_is_missing(night, {}, path.unlink)
    assert why.startswith(f"cannot read {path}: it does not exist.")


@pytest.mark.parametrize("other", [photo(99), b"no image", photo(BAD)[:-40], b""])
def test_an_original_that_is_another_one_by_now(tmp_path: Path, other: bytes) -> None:
    night, path = loose(tmp_path), original(tmp_path)
    why = check_that_one_heatmap_is_missing(night, {}, lambda: path.write_bytes(other))
    assert why == f"{path} has another content than when it was scored"


def test_an_original_that_cannot_be_decoded_again(tmp_path: Path) -> None:
    """It was embedded on an earlier night, which allowed larger images."""
    large = io.BytesIO()
    Image.fromarray(np.full((2 * HEIGHT, 2 * WIDTH, 3), 100, np.uint8)).save(large, "PNG")
    files = {f"{FOLDER}/{name}": photo(number) for number, name in enumerate(NAMES)}
    write(tmp_path / "archive", files | {f"{FOLDER}/{NAMES[BAD]}": large.getvalue()})
    night = scored_night(tmp_path / "archive", tmp_path / "lake", [f"{FOLDER}/{NAMES[BAD]}"])
    why = check_that_one_heatmap_is_missing(night, {"max_pixels": WIDTH * HEIGHT}, lambda: None)
    assert why == f"too many pixels: {2 * WIDTH}x{2 * HEIGHT} > archive.max_pixels {WIDTH * HEIGHT}"


def test_a_member_whose_tar_was_cut_off(tmp_path: Path) -> None:
    write(tmp_path / "archive", {f"{FOLDER}/a.tar": tar([(name, photo(n)) for n, name in enumerate(NAMES)])})
    night = scored_night(tmp_path / "archive", tmp_path / "lake", [f"{FOLDER}/a.tar#{NAMES[-1]}"])
    path = original(tmp_path, "a.tar")
    offset = night.groups[GROUP]["offset"].to_pylist()[-1]
    why = check_that_one_heatmap_is_missing(night, {}, lambda: path.write_bytes(path.read_bytes()[: offset + 10]))
    assert why.startswith("10 instead of ")


def test_a_row_that_is_no_longer_in_its_parquet_shard(tmp_path: Path) -> None:
    night, path = in_parquet(tmp_path), original(tmp_path, "a.parquet")
    left = [number for number in range(COUNT) if number != BAD]
    shorter = parquet({"id": [NAMES[n] for n in left], "image": [photo(n) for n in left]})
    why = check_that_one_heatmap_is_missing(night, {}, lambda: path.write_bytes(shorter))
    assert why == f"'{NAMES[BAD]}' is no longer in {path}"


def test_a_lake_that_takes_no_heatmap_ends_the_run(tmp_path: Path) -> None:
    night = loose(tmp_path)
    (tmp_path / "lake" / "heatmaps").write_text("in the way")
    with pytest.raises(LakeError, match=r"cannot write .*/heatmaps/night=2026-11-21/product=screw/run-1/.*\.png"):
        night.explain()
    assert night.explain(heatmaps="none")[1].num_rows == 1
