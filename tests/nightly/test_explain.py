"""Ranks, flags, heatmaps and regions of scored groups, drawn a portion at a time."""

from __future__ import annotations

import io
import math
import pickle
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from patchead.errors import DamagedFileError, LakeError
from patchead.hashing import text_digest
from patchead.maps.heatmap import colour_range, heatmap, overlay
from patchead.maps.regions import EXCEEDED_BY, MAP_SIDE, image_regions
from patchead.nightly.explain import PORTION, failed_rows
from patchead.nightly.explain_drawing import COLUMNS, Portion, draw_portion
from patchead.schema import FAILED, OK, REGIONS, SCORES, TOO_FEW_IMAGES, VERDICTS
from patchead.scoring.verdict import VerdictSettings, judge
from tests.helpers.sample_files import parquet, tar, write
from tests.helpers.scored_nights import (
    FOLDER,
    GROUP,
    HEIGHT,
    RUN,
    WIDTH,
    Night,
    in_turn,
    photo,
    scored_night,
    workers,
)

NUTS, NUT_GROUP = "product=nut/night=2026-11-21", "night=2026-11-21/product=nut"
HOT = ["000.png", "004.png", "081.png", "a.tar#003.png", "a.tar#039.png"]
HOT += [f"b.parquet#r{number:03}" for number in (0, 25, 26)]


def originals() -> dict[str, bytes]:
    """Image id to encoded bytes: 150 screws, loose, in a tar and in Parquet, and five nuts."""
    names = [f"{number:03}.png" for number in range(83)]
    names += [f"a.tar#{number:03}.png" for number in range(40)] + [f"b.parquet#r{number:03}" for number in range(27)]
    ids = [f"{FOLDER}/{name}" for name in names] + [f"{NUTS}/{number}.png" for number in range(5)]
    return {image: photo(number) for number, image in enumerate(ids)}


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    root, images = tmp_path_factory.mktemp("night"), originals()
    files = {image: data for image, data in images.items() if "#" not in image}

    def members(shard: str) -> list[tuple[str, bytes]]:
        return [(image.partition("#")[2], data) for image, data in images.items() if f"/{shard}#" in image]

    files[f"{FOLDER}/a.tar"] = tar(members("a.tar"))
    ids, data = zip(*members("b.parquet"), strict=True)
    files[f"{FOLDER}/b.parquet"] = parquet({"id": ids, "image": data}, row_group_size=10)
    write(root / "archive", files)
    return scored_night(root / "archive", root / "lake", [f"{FOLDER}/{name}" for name in HOT] + [f"{NUTS}/3.png"])


def small(root: Path, count: int = 9, hot: Iterable[int] = (4,)) -> Night:
    write(root / "archive", {f"{FOLDER}/{number}.png": photo(number) for number in range(count)})
    return scored_night(root / "archive", root / "lake", [f"{FOLDER}/{number}.png" for number in hot])


def level(unflagged: np.ndarray) -> float:
    """The lowest of the maps' maxima that no more than 1 % of them exceed."""
    peaks = [float(heatmap(grid, WIDTH, HEIGHT, max_side=MAP_SIDE).max()) for grid in unflagged]
    return min(peak for peak in peaks if sum(other > peak for other in peaks) <= EXCEEDED_BY * len(peaks))


def by_hand(night: Night, name: str) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Regions and pictures of all images of a group, from its patch scores and originals as a whole."""
    patches, images = night.patches[name], originals()
    flagged = judge(patches.max(axis=(1, 2)), VerdictSettings()).flagged
    threshold = level(patches[~flagged])
    colours = colour_range(patches, np.ones(len(patches), bool), threshold)
    rows, pictures = [], {}
    for grid, bad, image in zip(patches, flagged, night.groups[name]["image_id"].to_pylist(), strict=True):
        heat = heatmap(grid, WIDTH, HEIGHT, max_side=1024)
        found = image_regions(grid, threshold, width=WIDTH, height=HEIGHT, fit="squash", flagged=bool(bad))
        rows += [{"image_id": image, "region": number, **vars(region)} for number, region in enumerate(found, start=1)]
        pictures[image] = overlay(np.asarray(Image.open(io.BytesIO(images[image]))), heat, *colours)
    return pa.Table.from_pylist(rows), pictures


def test_every_image_is_a_row_with_its_rank_and_flag(night: Night) -> None:
    scores, regions = night.explain()
    assert scores.schema.equals(SCORES)
    assert regions.schema.equals(REGIONS)
    assert scores["image_id"].to_pylist() == sorted(originals())
    assert set(scores["run_id"].to_pylist()) == {RUN}
    assert scores["status"].to_pylist() == [OK] * 155
    assert scores["error"].null_count == 155
    for name, rows in night.groups.items():
        own = scores.filter(pa.compute.equal(scores["group_id"], name))
        expected = night.patches[name].max(axis=(1, 2)).astype(np.float64)
        for column in ("score", "max_patch"):
            np.testing.assert_array_equal(own[column].to_numpy(), expected)
        np.testing.assert_array_equal(own["z"].to_numpy(), judge(expected, VerdictSettings()).z)
        assert (np.argsort(own["rank"].to_numpy()) == np.argsort(-expected, kind="stable")).all()
        assert sorted(own["rank"].to_pylist()) == [*range(1, rows.num_rows + 1)]
        assert set(own["group_size"].to_pylist()) == {rows.num_rows}
        assert set(own["n_references"].to_pylist()) == {rows.num_rows - 1}
    flagged = scores.filter(scores["is_anomalous"])
    assert set(flagged["image_id"].to_pylist()) == set(night.hot)
    assert scores["heatmap_path"].is_valid().to_pylist() == scores["is_anomalous"].to_pylist()
    assert set(regions["image_id"].to_pylist()) == set(night.hot)


def test_portions_add_up_to_the_group_as_a_whole(night: Night) -> None:
    scores, regions = night.explain(heatmaps="all", portion=7)
    for name in night.groups:
        expected, pictures = by_hand(night, name)
        own = regions.filter(pa.compute.equal(regions["group_id"], name))
        assert own.select(expected.column_names).to_pylist() == expected.to_pylist()
        for row in scores.filter(pa.compute.equal(scores["group_id"], name)).to_pylist():
            np.testing.assert_array_equal(np.asarray(night.picture(row["heatmap_path"])), pictures[row["image_id"]])


@pytest.mark.parametrize(
    "heatmaps", ["all", *(pytest.param(wanted, marks=pytest.mark.slow) for wanted in ("flagged", "none"))]
)
def test_tables_are_the_same_for_every_portion_and_number_of_workers(night: Night, heatmaps: str) -> None:
    scores, regions = night.explain(heatmaps=heatmaps, portion=10_000)
    assert regions.num_rows >= len(night.hot)
    for portion, run in ((1, workers(3)), (7, workers(2)), (64, workers(5))):
        again = night.explain(run, heatmaps=heatmaps, portion=portion)
        assert again[0].equals(scores)
        assert again[1].equals(regions)


class Handed:
    """Runs in this process and keeps the items it was handed, one list for each call."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []

    def __call__(
        self, function: Callable[[Any], Any], items: Iterable[Any], failed: Any = None
    ) -> Iterator[tuple[int, Any]]:
        seen: list[Any] = []
        self.calls.append(seen)

        def kept() -> Iterator[Any]:
            for item in items:
                seen.append(item)
                yield item

        yield from in_turn(function, kept())


def test_one_large_group_is_work_for_many(night: Night) -> None:
    handed = Handed()
    night.explain(handed, heatmaps="all")
    ranked, drawn = handed.calls
    assert len(ranked) == 2  # one task for each group: what concerns the group is decided once
    assert [portion.images.num_rows for portion in drawn] == [5, 50, 50, 50]
    assert PORTION == 64
    assert max(len(pickle.dumps(item)) for item in drawn) < 40_000  # no patch scores travel, no other image's row
    for portion in drawn:
        places = zip(*(portion.images[name].to_pylist() for name in ("uri", "key")), strict=True)
        shards = [uri if key else "loose" for uri, key in places]
        assert len({*shards}) == len([*groupby(shards)])  # a task opens no shard twice


def test_flagged_images_alone_are_handed_out(night: Night) -> None:
    handed = Handed()
    night.explain(handed, portion=3)
    assert [portion.images.num_rows for portion in handed.calls[1]] == [1, 3, 3, 2]
    handed = Handed()
    night.explain(handed, threshold_z=1e6)
    assert handed.calls[1] == []


def test_a_portion_does_not_load_the_patch_scores_of_its_group(tmp_path: Path) -> None:
    night = small(tmp_path)
    grids = np.random.default_rng(0).random((1_000, 64, 64), dtype=np.float32)
    night.folder.write_group(GROUP, [str(i) for i in range(1_000)], grids, np.zeros(1_000), np.ones(1_000), digest="d")
    portion = Portion(
        images=night.groups[GROUP].select(COLUMNS),
        indices=np.arange(500, 509),
        flagged=np.ones(9, bool),
        drawn=False,
        threshold=0.5,
        colours=(0.0, 1.0),
    )
    tracemalloc.start()
    try:
        drawn = draw_portion(portion, folder=night.folder, settings=night.settings().drawing)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn.files.num_rows == 9
    assert peak < grids.nbytes / 4


def test_progress_adds_up_to_the_images(night: Night) -> None:
    for heatmaps in ("flagged", "all", "none"):
        told: list[int] = []
        night.explain(heatmaps=heatmaps, min_batch=6, advance=told.append)
        assert sum(told) == 155


def test_a_verdict_says_how_the_flags_came_about(night: Night) -> None:
    done = night.explained(min_batch=6)
    assert done.verdicts.schema.equals(VERDICTS)
    nuts, screws = sorted(done.verdicts.to_pylist(), key=lambda row: row["product"])
    assert (nuts["group_id"], nuts["images"], nuts["scored"], nuts["flagged"]) == (NUT_GROUP, 5, 0, 0)
    assert {nuts[name] for name in ("verdict_rule", "centre", "threshold_score", "skew")} == {None}
    scores = night.patches[GROUP].max(axis=(1, 2)).astype(np.float64)
    expected = judge(scores, VerdictSettings())
    assert (screws["run_id"], screws["night"].isoformat(), screws["encoder_id"]) == (RUN, "2026-11-21", "encoder-1")
    assert (screws["images"], screws["scored"], screws["flagged"]) == (150, 150, len(HOT))
    for name in ("centre", "scale", "threshold_z", "threshold_score"):
        assert screws[name] == getattr(expected, name), name
    assert screws["verdict_rule"] == "upper_fit"
    assert screws["median"] == np.median(scores)
    assert screws["gap_z"] == pytest.approx(
        (scores[expected.flagged].min() - scores[~expected.flagged].max()) / expected.scale
    )
    rows = done.scores.filter(pa.compute.equal(done.scores["group_id"], GROUP))
    assert set(rows["threshold_score"].to_pylist()) == {expected.threshold_score}
    assert set(rows["verdict_rule"].to_pylist()) == {"upper_fit"}
    assert rows["p_value"].null_count == 150


def test_a_product_may_have_its_own_threshold(night: Night) -> None:
    verdicts = night.explained(threshold_z=2.0, thresholds={"nut": 1e6}).verdicts.to_pylist()
    assert {row["product"]: row["threshold_z"] for row in verdicts} == {"nut": 1e6, "screw": 2.0}
    assert {row["product"]: row["flagged"] > 0 for row in verdicts} == {"nut": False, "screw": True}


@pytest.mark.parametrize("top", [0, 3, 8, 20])
def test_the_highest_of_every_group_are_explained_flagged_or_not(night: Night, top: int) -> None:
    scores, regions = night.explain(top=top, patch_threshold=0.05)
    for row in scores.to_pylist():
        wanted = row["is_anomalous"] or row["rank"] <= top
        assert (row["heatmap_path"] is not None) == wanted
        assert (row["image_id"] in set(regions["image_id"].to_pylist())) == wanted


def test_regions_without_heatmaps(night: Night) -> None:
    scores, regions = night.explain(heatmaps="none")
    assert scores["heatmap_path"].null_count == scores.num_rows
    assert regions.equals(night.explain()[1])


def test_the_patch_threshold_that_is_given_decides_the_regions(tmp_path: Path) -> None:
    night = small(tmp_path)
    default, given = (night.explained(patch_threshold=value) for value in (None, 0.3))
    limit = level(np.delete(night.patches[GROUP], 4, axis=0))
    for done, expected in ((default, limit), (given, 0.3)):
        (row,) = done.regions.to_pylist()
        (verdict,) = done.verdicts.to_pylist()
        assert row["threshold"] == verdict["region_threshold"] == expected
        assert row["peak"] == heatmap(night.patches[GROUP][4], WIDTH, HEIGHT, max_side=MAP_SIDE).max()
    assert limit < 0.2
    assert given.scores["is_anomalous"].to_pylist() == default.scores["is_anomalous"].to_pylist()
    for value, images in ((0.05, 9), (None, 1), (0.3, 1)):
        regions = night.explain(heatmaps="all", patch_threshold=value)[1]
        assert len({*regions["image_id"].to_pylist()}) == images


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_a_flagged_image_has_a_region_also_where_its_map_stays_below_the_threshold(
    tmp_path: Path, threshold: float | None
) -> None:
    night = small(tmp_path)
    grids = np.full((9, 6, 8), 0.1, np.float32)
    grids[2, 3, 3] = 0.8  # the highest of the maps, and yet not flagged
    scores = np.linspace(0.1, 0.11, 9)
    scores[4] = 0.5
    grids[4] = 0.1 + 0.01 * np.arange(48).reshape(6, 8) / 48
    ids = night.groups[GROUP]["image_id"].to_pylist()
    night.folder.write_group(GROUP, ids, grids, scores, np.full(9, 8), digest="d")
    done = night.explained(patch_threshold=threshold, top=9)
    flagged = done.scores.filter(done.scores["is_anomalous"])["image_id"].to_pylist()
    assert flagged == [f"{FOLDER}/4.png"]
    (verdict,) = done.verdicts.to_pylist()
    assert {row["image_id"] for row in done.regions.to_pylist()} == {*flagged}
    assert all(row["threshold"] < row["peak"] < verdict["region_threshold"] for row in done.regions.to_pylist())
    assert done.scores["heatmap_path"].null_count == 0  # explain.top shows the others, which have no region


def test_regions_do_not_depend_on_the_size_of_the_heatmaps(tmp_path: Path) -> None:
    night = small(tmp_path, 30, (4, 11, 29))
    expected = night.explain(heatmaps="all")[1]
    assert expected.num_rows >= 3
    for side in (32, 40):
        assert night.explain(heatmaps="all", max_side=side)[1].equals(expected)


def test_where_all_are_flagged_every_image_has_a_region(tmp_path: Path) -> None:
    night = small(tmp_path)
    for rule in ("top", "mad"):
        done = night.explained(verdict=rule, flag_top=9, threshold_z=None if rule == "top" else -100.0)
        assert done.scores["is_anomalous"].to_pylist() == [True] * 9
        (verdict,) = done.verdicts.to_pylist()
        assert verdict["region_threshold"] == (None if rule == "top" else verdict["threshold_score"])
        assert 0 < verdict["threshold_score"] < min(done.scores["score"].to_pylist()) or rule == "mad"
        assert {*done.regions["image_id"].to_pylist()} == {*done.scores["image_id"].to_pylist()}


def test_a_group_of_equal_scores_flags_nothing(tmp_path: Path) -> None:
    night = small(tmp_path)
    grids = np.full((9, 6, 8), 0.25, np.float32)
    ids = night.groups[GROUP]["image_id"].to_pylist()
    night.folder.write_group(GROUP, ids, grids, np.full(9, 0.25), np.full(9, 8), digest="d")
    scores, regions = night.explain(heatmaps="all")
    assert scores["z"].to_pylist() == [0.0] * 9
    assert regions.num_rows == 0
    assert scores["heatmap_path"].null_count == 0
    assert math.isclose(np.asarray(night.picture(scores["heatmap_path"][0].as_py())).mean(), 99.5, abs_tol=1)


def test_staged_scores_of_other_images_are_refused(tmp_path: Path) -> None:
    night = small(tmp_path)
    ids = night.groups[GROUP]["image_id"].to_pylist()
    night.folder.write_group(GROUP, [*ids[:-1], "other"], night.patches[GROUP], np.zeros(9), np.ones(9), digest="d")
    with pytest.raises(LakeError) as caught:
        night.explain()
    assert str(caught.value) == f"the staged scores of {GROUP} are of other images. Run again under a new run id."


def test_a_group_that_is_not_staged_is_refused(tmp_path: Path) -> None:
    night = small(tmp_path)
    for file in (tmp_path / "lake" / "runs" / RUN / "groups").iterdir():
        file.unlink()
    with pytest.raises(LakeError, match=rf"group {GROUP} is not staged: .* does not exist\. Run again\."):
        night.explain()


def test_too_few_images_get_no_score(night: Night) -> None:
    scores, regions = night.explain(min_batch=6, heatmaps="all")
    small = scores.filter(pa.compute.equal(scores["group_id"], NUT_GROUP))
    assert small["status"].to_pylist() == [TOO_FEW_IMAGES] * 5
    assert set(small["error"].to_pylist()) == {"group of 5, fewer than scoring.min_batch=6"}
    assert small["group_size"].to_pylist() == [5] * 5
    for name in ("score", "rank", "z", "is_anomalous", "max_patch", "n_references", "heatmap_path"):
        assert small[name].null_count == 5, name
    assert NUT_GROUP not in regions["group_id"].to_pylist()
    assert scores.num_rows == 155


def test_an_image_without_a_reference_is_no_part_of_the_ranking(tmp_path: Path) -> None:
    night = small(tmp_path, count=10)
    known = np.full(10, 9)
    known[[2, 7]] = 0
    night.stage(GROUP, known)
    scores, regions = night.explain(heatmaps="all")
    for row in scores.to_pylist():
        without = row["image_id"] in (f"{FOLDER}/2.png", f"{FOLDER}/7.png")
        assert row["status"] == (TOO_FEW_IMAGES if without else OK)
        for name in ("score", "rank", "z", "is_anomalous", "max_patch", "heatmap_path"):
            assert (row[name] is None) == without, name
        assert (row["error"] or "").startswith("no reference: every image") == without
        assert row["n_references"] == (0 if without else 9)
    assert sorted(scores["rank"].drop_null().to_pylist()) == [1, *range(2, 9)]
    assert regions["image_id"].to_pylist() == [f"{FOLDER}/4.png"]


def test_a_group_in_which_no_image_has_a_reference(tmp_path: Path) -> None:
    night = small(tmp_path, count=4)
    night.stage(GROUP, np.zeros(4, int))
    for heatmaps in ("flagged", "all", "none"):
        scores, regions = night.explain(heatmaps=heatmaps)
        assert scores["status"].to_pylist() == [TOO_FEW_IMAGES] * 4
        assert (scores["score"].null_count, regions.num_rows) == (4, 0)


def test_no_groups_no_rows(tmp_path: Path) -> None:
    night = small(tmp_path)
    night.groups = {}
    scores, regions = night.explain()
    assert (scores.num_rows, regions.num_rows) == (0, 0)
    assert scores.schema.equals(SCORES)
    assert regions.schema.equals(REGIONS)


def test_failed_images_are_rows_with_their_error(tmp_path: Path) -> None:
    night = small(tmp_path, count=3)
    n = 2
    images = night.groups[GROUP].slice(0, n).drop_columns(["status", "error"])
    images = images.append_column("status", [[FAILED] * n]).append_column("error", [["no image", "gone"]])
    rows = failed_rows(images, night.settings())
    assert rows.schema.equals(SCORES)
    for row, error in zip(rows.to_pylist(), ["no image", "gone"], strict=True):
        assert (row["status"], row["error"], row["run_id"]) == (FAILED, error, RUN)
        assert (row["group_id"], row["encoder_id"]) == (GROUP, "encoder-1")
        assert {row[name] for name in ("score", "z", "rank", "group_size", "heatmap_path")} == {None}
    assert failed_rows(images.slice(0, 0), night.settings()).num_rows == 0


def drawn_at(night: Night) -> dict[str, int]:
    """When each heatmap was written, by the name of its image."""
    scores = night.explain(goes_on=True, portion=1)[0]
    uris = dict(zip(scores["image_id"].to_pylist(), scores["heatmap_path"].to_pylist(), strict=True))
    return {image[-5:]: Path(night.lake, uri).stat().st_mtime_ns for image, uri in uris.items() if uri}


def ended_early(function: Callable[[Any], Any], items: Iterable[Any], failed: Any = None) -> Iterator[tuple[int, Any]]:
    """Ends the run behind the first portion."""
    for number, result in in_turn(function, items):
        yield number, result
        if hasattr(result, "files"):
            raise KeyboardInterrupt


def test_a_run_that_goes_on_draws_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    night = small(tmp_path, hot=(2, 4))
    with pytest.raises(KeyboardInterrupt):
        night.explain(ended_early, portion=1)
    (first,) = (tmp_path / "lake" / "heatmaps").rglob("*.png")
    at = first.stat().st_mtime_ns
    scores, regions = night.explain(goes_on=True, portion=1)
    assert first.stat().st_mtime_ns == at
    lake = tmp_path / "lake"
    files = {str(path.relative_to(lake)) for path in (lake / "heatmaps").rglob("*.png")}
    assert set(scores["heatmap_path"].drop_null().to_pylist()) == files
    assert len(files) == 2
    assert regions["image_id"].to_pylist() == [f"{FOLDER}/2.png", f"{FOLDER}/4.png"]
    again = night.explain(goes_on=True, portion=1)
    assert again[0].equals(scores)
    assert again[1].equals(regions)


def test_what_was_drawn_is_taken_if_it_was_made_of_the_same_and_is_there(tmp_path: Path) -> None:
    night = small(tmp_path, hot=(2, 4))
    night.explain(portion=1)
    before = drawn_at(night)
    assert drawn_at(night) == before

    def drawn_again(**changed: Any) -> set[str]:
        """Names of the images that are drawn anew."""
        earlier = drawn_at(night)
        night.explain(goes_on=True, portion=1, **changed)
        return {image for image, at in drawn_at(night).items() if at != earlier[image]}

    assert drawn_again() == set()
    for changed in ({"max_side": 40}, {"patch_threshold": 0.2}):
        assert drawn_again(**changed) == {"2.png", "4.png"}
    Path(night.lake, night.explain(goes_on=True, portion=1)[0]["heatmap_path"].drop_null()[0].as_py()).unlink()
    earlier = drawn_at_if_there(night)
    later = drawn_at(night)
    assert {image for image in later if later[image] != earlier.get(image)} == {"2.png"}


def drawn_at_if_there(night: Night) -> dict[str, int]:
    """The same of the pictures that are there, without explaining anything."""
    names = {text_digest(f"{FOLDER}/{number}.png"): f"{number}.png" for number in range(9)}
    return {names[path.stem]: path.stat().st_mtime_ns for path in Path(night.lake, "heatmaps").rglob("*.png")}


def test_other_scores_are_drawn_again(tmp_path: Path) -> None:
    night = small(tmp_path, hot=(2, 4))
    night.explain(portion=1)
    before, staged = drawn_at(night), night.folder.read_group(GROUP)
    grids = staged.patch_scores.copy()
    grids[4, 0, 0] += 1e-3  # neither its verdict nor the threshold of the group's regions changes
    night.folder.write_group(
        GROUP, staged.image_ids, grids, staged.scores, staged.n_references, digest="of other settings"
    )
    after = drawn_at(night)
    assert after["2.png"] == before["2.png"]
    assert after["4.png"] != before["4.png"]


def test_a_picture_that_could_not_be_drawn_is_tried_again(tmp_path: Path) -> None:
    night = small(tmp_path)
    original = tmp_path / "archive" / FOLDER / "4.png"
    away = original.rename(tmp_path / "away")
    scores, _ = night.explain()
    assert scores["heatmap_path"].null_count == scores.num_rows
    away.rename(original)
    scores, _ = night.explain(goes_on=True)
    assert scores["heatmap_path"].null_count == scores.num_rows - 1


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_damaged_file_of_what_was_drawn_is_told_by_its_name_or_not_taken(tmp_path: Path, place: float) -> None:
    night = small(tmp_path, hot=(2, 4))
    scores, regions = night.explain()
    (path,) = Path(night.lake, "runs", RUN, "explained").iterdir()
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    try:
        again = night.explain(goes_on=True)
    except DamagedFileError as exc:
        assert exc.uri == str(path)
        assert night.folder.set_aside(exc.uri) is not None
        again = night.explain(goes_on=True)
    assert again[0].equals(scores)
    assert again[1].equals(regions)
