"""The nightly job, from an archive folder to published tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from demo_archive import Photo, build_archive
from e2e_tools import by_id, good_images, png, rows, spoiled, table, write_group
from PIL import Image
from reference.oracle import image_scores, patch_scores

from patchead.archive.decode import decode, fit
from patchead.encoders import EncoderSpec, build
from patchead.errors import SettingsError
from patchead.pipeline.record import RunRecord

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"


@pytest.fixture(scope="module")
def screws() -> dict[str, bytes]:
    return {**good_images(9), "bad.png": png(spoiled(100))}


def test_the_scores_are_those_of_the_equations(tmp_path: Path, screws: dict[str, bytes], score_night: Score) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", screws)
    score_night(tmp_path / "archive", tmp_path / "lake")
    encoder = build(EncoderSpec("timm/vit_tiny_patch16_224", "random", image_size=64))
    names = sorted(screws)
    pixels = [fit(decode(screws[name], max_pixels=10**6, bit_depth="auto"), 64, "squash") for name in names]
    patches = patch_scores(encoder.embed(np.stack(pixels)), list(range(10)), [-1] * 10)
    expected = dict(zip(names, image_scores(patches, 1), strict=True))
    found = {row["image_id"].rpartition("/")[2]: row for row in rows(tmp_path / "lake")}
    assert {name: row["score"] for name, row in found.items()} == pytest.approx(expected, abs=1e-5)
    assert {name: row["max_patch"] for name, row in found.items()} == pytest.approx(
        dict(zip(names, patches.max(axis=1), strict=True)), abs=1e-5
    )
    assert {row["n_references"] for row in found.values()} == {9}


def test_the_spoiled_image_comes_out_on_top_with_heatmap_and_region(
    tmp_path: Path, screws: dict[str, bytes], score_night: Score
) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", screws)
    record = score_night(tmp_path / "archive", tmp_path / "lake")
    bad = by_id(tmp_path / "lake")[f"night={NIGHT}/product=screw/bad.png"]
    assert (bad["rank"], bad["is_anomalous"], bad["status"], bad["group_size"]) == (1, True, "ok", 10)
    assert bad["z"] > 3.5
    picture = np.asarray(Image.open(bad["heatmap_uri"]))
    assert picture.shape == (48, 48, 3)
    regions = [r for r in rows(tmp_path / "lake", "regions") if r["image_id"] == bad["image_id"]]
    first = min(regions, key=lambda r: r["region"])
    assert first["x"] < 32 and first["x"] + first["width"] > 16  # it meets the planted square
    assert first["y"] < 32 and first["y"] + first["height"] > 16
    assert record.anomalous == sum(row["is_anomalous"] for row in rows(tmp_path / "lake"))


def test_the_three_shard_formats_give_the_same_scores(tmp_path: Path, score_night: Score) -> None:
    photos = [Photo(f"cell{i}", data, False) for i, data in enumerate(good_images(6).values())]
    build_archive(tmp_path / "archive", lambda product, night: photos, ("a", "b", "c"))
    score_night(tmp_path / "archive", tmp_path / "lake")
    found = table(tmp_path / "lake").to_pylist()
    kinds = {row["uri"].rpartition(".")[2] for row in found}
    assert kinds == {"png", "tar", "parquet"}
    for photo in photos:
        scores = [row["score"] for row in found if photo.name in row["image_id"].rpartition("/")[2]]
        assert len(scores) == 6
        assert scores == pytest.approx([scores[0]] * 6, abs=1e-6)


def test_a_second_run_embeds_nothing_and_replaces_exactly_its_night(
    tmp_path: Path, screws: dict[str, bytes], score_night: Score
) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    write_group(archive, NIGHT, "screw", screws)
    write_group(archive, "2026-11-20", "screw", good_images(6, first_seed=50))
    first = score_night(archive, lake)
    before = by_id(lake)
    second = score_night(archive, lake, **{"archive.night": NIGHT})
    after = by_id(lake)
    assert (first.embedded, first.reused) == (16, 0)
    assert (second.embedded, second.reused, second.images) == (0, 10, 10)
    assert set(after) == set(before)
    assert len(rows(lake)) == 16
    for image_id, row in after.items():
        expected = second.run_id if NIGHT in image_id else first.run_id
        assert row["run_id"] == expected
        assert row["score"] == pytest.approx(before[image_id]["score"], abs=1e-6)
    assert [row["run_id"] for row in rows(lake, "runs")] == sorted([first.run_id, second.run_id])


def test_an_image_embedded_on_an_earlier_night_is_recognised_by_its_content(tmp_path: Path, score_night: Score) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    images = good_images(6)
    write_group(archive, "2026-11-20", "screw", images)
    score_night(archive, lake)
    write_group(archive, NIGHT, "screw", {f"again-{name}": data for name, data in images.items()})
    record = score_night(archive, lake, **{"archive.night": NIGHT})
    assert (record.embedded, record.reused, record.ok) == (0, 6, 6)


def test_the_same_run_id_again_is_a_no_op(tmp_path: Path, screws: dict[str, bytes], score_night: Score) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    folder = write_group(archive, NIGHT, "screw", screws)
    score_night(archive, lake, **{"run.run_id": "tonight"})
    before = table(lake)
    (folder / "late.png").write_bytes(png(spoiled(7)))
    again = score_night(archive, lake, **{"run.run_id": "tonight"})
    assert again.state == "already published"
    assert table(lake).equals(before)
    assert json.loads((lake / "runs/tonight/run.json").read_text())["state"] == "published"


def test_a_run_id_is_not_taken_for_another_night(tmp_path: Path, screws: dict[str, bytes], score_night: Score) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    write_group(archive, NIGHT, "screw", screws)
    score_night(archive, lake, **{"run.run_id": "nightly", "archive.night": NIGHT})
    with pytest.raises(SettingsError, match=r"'nightly' is already published for other images \(archive: night\)"):
        score_night(archive, lake, **{"run.run_id": "nightly", "archive.night": "2026-11-22"})


def test_the_run_record_adds_up(tmp_path: Path, screws: dict[str, bytes], score_night: Score) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    write_group(archive, NIGHT, "screw", screws | {"broken.png": b"no image", "readme.txt": b"no image either"})
    write_group(archive, NIGHT, "nut", good_images(3, first_seed=20))
    record = score_night(archive, lake, **{"run.max_failed_fraction": 0.5, "run.run_id": "r1"})
    saved = json.loads((lake / "runs/r1/run.json").read_text())
    assert saved["images"] == 14 == saved["ok"] + saved["failed"] + saved["skipped"]
    assert (saved["ok"], saved["failed"], saved["skipped"], saved["ignored_files"]) == (10, 1, 3, 1)
    assert saved["embedded"] + saved["reused"] + saved["failed"] == 14
    assert set(saved["seconds"]) == {"catalog", "encoder", "embed", "score", "explain", "publish"}
    scoring = saved["scoring"]
    assert scoring["precision"] == "fp32"
    assert (scoring["reads_of_a_block_per_node"], scoring["tasks_redone"]) == (1, 0)
    assert scoring["bytes_read"] > 0
    assert {"ray", "torch", "timm", "patchead"} <= set(saved["versions"])
    (row,) = rows(lake, "runs")
    assert (row["images"], row["ok"], row["failed"], row["skipped"]) == (14, 10, 1, 3)
    assert json.loads(row["config_json"])["scoring"]["fraction"] == 0.3
    assert row["encoder_id"] == record.encoder_id


# tests/pipeline/test_score.py compares schedules, actors, blocks and panels on the scoring stage alone.
@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_scores_do_not_depend_on_schedule_actors_or_blocks(
    tmp_path: Path, screws: dict[str, bytes], score_night: Score, schedule: str
) -> None:
    archive = tmp_path / "archive"
    write_group(archive, NIGHT, "screw", {**good_images(20), **screws})
    score_night(archive, tmp_path / "one", **{"resources.score_actors": 1, "resources.cpus_per_actor": 2})
    split = {"resources.score_actors": 2, "resources.cpus_per_actor": 2, "scoring.schedule": schedule}
    record = score_night(archive, tmp_path / "two", **split)
    assert record.scoring["groups_in_blocks"] == 1
    one, two = by_id(tmp_path / "one"), by_id(tmp_path / "two")
    assert {i: r["score"] for i, r in two.items()} == pytest.approx({i: r["score"] for i, r in one.items()}, abs=1e-6)
    assert {i: r["n_references"] for i, r in two.items()} == {i: r["n_references"] for i, r in one.items()}


@pytest.mark.slow
def test_a_panel_of_references_is_the_same_in_blocks_and_whole(tmp_path: Path, score_night: Score) -> None:
    archive = tmp_path / "archive"
    write_group(archive, NIGHT, "screw", good_images(20))
    panel = {"scoring.max_references": 8, "resources.cpus_per_actor": 2}
    score_night(archive, tmp_path / "one", **panel, **{"resources.score_actors": 1})
    record = score_night(archive, tmp_path / "two", **panel, **{"resources.score_actors": 2})
    assert record.scoring["references"] == {f"night={NIGHT}/product=screw": 8}
    one, two = by_id(tmp_path / "one"), by_id(tmp_path / "two")
    assert {row["n_references"] for row in one.values()} == {7, 8}
    assert {i: r["score"] for i, r in two.items()} == pytest.approx({i: r["score"] for i, r in one.items()}, abs=1e-6)


def test_a_finer_grouping_and_part_ids(tmp_path: Path, score_night: Score) -> None:
    archive = tmp_path / "archive"
    for station in "ab":
        for part, (name, data) in enumerate(good_images(6, first_seed=ord(station)).items()):
            folder = archive / "screw" / station / NIGHT / f"part{part // 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    score_night(
        archive,
        tmp_path / "lake",
        **{
            "archive.template": "{product}/{station}/{night}/{part}/{filename}",
            "archive.group_by": ["night", "product", "station"],
            "archive.part_id_column": "part",
        },
    )
    found = rows(tmp_path / "lake")
    assert {row["group_id"] for row in found} == {f"night={NIGHT}/product=screw/station={s}" for s in "ab"}
    assert {(row["group_size"], row["n_references"]) for row in found} == {(6, 4)}


@pytest.mark.slow
def test_a_trial_may_not_replace_a_full_run(tmp_path: Path, screws: dict[str, bytes], score_night: Score) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    write_group(archive, NIGHT, "screw", screws)
    trial = score_night(archive, tmp_path / "trial", **{"archive.limit": 6})
    assert (trial.images, trial.ok) == (6, 6)
    score_night(archive, lake)
    with pytest.raises(SettingsError, match=r"archive\.limit=6 is for trials.*lake\.uri of its own"):
        score_night(archive, lake, **{"archive.limit": 6})
    assert len(rows(lake)) == 10
