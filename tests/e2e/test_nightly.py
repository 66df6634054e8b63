"""The nightly job, from an archive folder to published tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from deltalake import DeltaTable
from PIL import Image
from reference.oracle import image_scores, patch_scores

from patchead.archive.decode import decode, fit
from patchead.encoders import EncoderSpec, build
from patchead.errors import SettingsError
from patchead.nightly.run_record import RunRecord
from patchead.schema import TABLES
from tests.helpers.e2e_tools import (
    ROOT,
    SMALL,
    by_id,
    good_images,
    job_command,
    job_environment,
    png,
    rows,
    spoiled,
    table,
    write_group,
)

Score = Callable[..., RunRecord]
NIGHT, NIGHT_BEFORE = "2026-11-21", "2026-11-20"
R1 = {"run.run_id": "r1", "run.max_failed_fraction": 0.5}


@dataclass(frozen=True)
class Published:
    """An archive, the lake that run ``r1`` published it to, and the run's record."""

    archive: Path
    lake: Path
    record: RunRecord

    def copy(self, folder: Path) -> Published:
        """The same under another folder, for a test that goes on from here."""
        for name in ("archive", "lake"):
            shutil.copytree(getattr(self, name), folder / name)
        return Published(folder / "archive", folder / "lake", self.record)


@pytest.fixture(scope="module")
def screws() -> dict[str, bytes]:
    return {**good_images(9), "bad.png": png(spoiled(100))}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, screws: dict[str, bytes], score_night: Score) -> Published:
    """Ten screws and a broken file, three nuts, and six screws of the night before; tests must not change it."""
    root = tmp_path_factory.mktemp("published")
    archive, lake = root / "archive", root / "lake"
    write_group(archive, NIGHT, "screw", screws | {"broken.png": b"no image", "readme.txt": b"no image either"})
    write_group(archive, NIGHT, "nut", good_images(3, first_seed=20))
    write_group(archive, NIGHT_BEFORE, "screw", good_images(6, first_seed=50))
    return Published(archive, lake, score_night(archive, lake, **R1))


def test_the_scores_are_those_of_the_equations(published: Published, screws: dict[str, bytes]) -> None:
    encoder = build(EncoderSpec("timm/test_vit", "random", image_size=64))
    names = sorted(screws)
    pixels = [fit(decode(screws[name], max_pixels=10**6, bit_depth="auto"), 64, "squash") for name in names]
    patches = patch_scores(encoder.embed(np.stack(pixels)).all_vectors(), list(range(10)), [-1] * 10)
    expected = dict(zip(names, image_scores(patches, 1), strict=True))
    found = {name: by_id(published.lake)[f"night={NIGHT}/product=screw/{name}"] for name in names}
    assert {name: row["score"] for name, row in found.items()} == pytest.approx(expected, abs=1e-5)
    assert {name: row["max_patch"] for name, row in found.items()} == pytest.approx(
        dict(zip(names, patches.max(axis=1), strict=True)), abs=1e-5
    )
    assert {row["n_references"] for row in found.values()} == {9}


def test_the_spoiled_image_comes_out_on_top_with_heatmap_and_region(published: Published) -> None:
    bad = by_id(published.lake)[f"night={NIGHT}/product=screw/bad.png"]
    assert (bad["rank"], bad["is_anomalous"], bad["status"], bad["group_size"]) == (1, True, "ok", 10)
    assert bad["z"] > 3.5
    picture = np.asarray(Image.open(published.lake / bad["heatmap_path"]))
    assert picture.shape == (48, 48, 3)
    regions = [r for r in rows(published.lake, "regions") if r["image_id"] == bad["image_id"]]
    first = min(regions, key=lambda r: r["region"])
    assert first["x"] < 32 and first["x"] + first["width"] > 16  # it meets the planted square
    assert first["y"] < 32 and first["y"] + first["height"] > 16
    assert published.record.anomalous == sum(row["is_anomalous"] is True for row in rows(published.lake))


def test_the_run_record_adds_up(published: Published) -> None:
    saved = json.loads((published.lake / "runs/r1/run.json").read_text())
    assert saved["images"] == 20 == saved["ok"] + saved["failed"] + saved["skipped"]
    assert (saved["ok"], saved["failed"], saved["skipped"], saved["ignored_files"]) == (16, 1, 3, 1)
    assert (saved["embedded"], saved["reused"]) == (19, 0)
    assert set(saved["seconds"]) == {"catalog", "encoder", "embed", "score", "explain", "name", "publish"}
    scoring = saved["scoring"]
    assert scoring["precision"] == "fp32"
    assert (scoring["reads_of_a_block_per_node"], scoring["tasks_redone"]) == (1, 0)
    assert scoring["bytes_read"] > 0
    assert {"ray", "torch", "timm", "patchead"} <= set(saved["versions"])
    row, other = sorted(rows(published.lake, "runs"), key=lambda row: -row["images"])
    counts = ("images", "ok", "failed", "skipped", "ignored", "groups")
    assert [[each[name] for name in counts] for each in (row, other)] == [[14, 10, 1, 3, 1, 2], [6, 6, 0, 0, 1, 1]]
    assert json.loads(row["config_json"])["scoring"]["fraction"] == 0.3
    assert row["encoder_id"] == published.record.encoder_id


def test_a_second_run_embeds_nothing_and_replaces_exactly_its_night(
    tmp_path: Path, published: Published, score_night: Score
) -> None:
    ours = published.copy(tmp_path)
    # What was embedded on an earlier night is known by its content, whatever it is called now.
    again = {f"again-{name}": data for name, data in good_images(6, first_seed=50).items()}
    write_group(ours.archive, NIGHT, "screw-again", again)
    before = by_id(ours.lake)
    second = score_night(ours.archive, ours.lake, **{"archive.night": NIGHT, "run.max_failed_fraction": 0.5})
    after = by_id(ours.lake)
    assert (second.embedded, second.reused, second.failed, second.images, second.ok) == (0, 19, 1, 20, 16)
    assert set(before) < set(after)
    assert len(rows(ours.lake)) == 26
    assert {image_id: row["run_id"] for image_id, row in after.items()} == {
        image_id: second.run_id if NIGHT in image_id else "r1" for image_id in after
    }
    assert {image_id: after[image_id]["score"] for image_id in before} == pytest.approx(
        {image_id: row["score"] for image_id, row in before.items()}, abs=1e-6
    )
    assert [row["run_id"] for row in rows(ours.lake, "runs")] == sorted(["r1", "r1", second.run_id])


def test_the_same_run_id_again_is_a_no_op(published: Published, score_night: Score) -> None:
    versions = {name: DeltaTable(f"{published.lake}/tables/{name}").version() for name in TABLES}
    before, late = table(published.lake), published.archive / f"night={NIGHT}/product=screw/late.png"
    late.write_bytes(png(spoiled(7)))
    try:
        again = score_night(published.archive, published.lake, **R1, **{"scoring.memory_gb": 2})
    finally:
        late.unlink()
    assert again.state == "already published"
    assert table(published.lake).equals(before)
    assert {name: DeltaTable(f"{published.lake}/tables/{name}").version() for name in TABLES} == versions
    assert json.loads((published.lake / "runs/r1/run.json").read_text())["state"] == "published"


@pytest.mark.slow
def test_killed_before_publish_it_changes_nothing_and_goes_on_under_its_run_id(
    tmp_path: Path, published: Published, score_night: Score, local_ray: None
) -> None:
    """A process of its own on the session's Ray, which outlives it."""
    ours, night = published.copy(tmp_path), "2026-11-22"
    archive, lake = ours.archive, ours.lake
    before = table(lake)
    for product in "abcdef":
        write_group(archive, night, product, good_images(8, first_seed=10 * ord(product)))
    arguments = ["--archive", str(archive), "--lake", str(lake), "--night", night, "--run-id", "second"]
    few = [f"--set=resources.{name}=1" for name in ("embed_actors", "score_actors", "cpus_per_actor")]
    staged = lake / "runs/second/groups"
    run = subprocess.Popen(
        job_command(*arguments, *few),
        cwd=ROOT,
        env=job_environment() | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not (staged.exists() and any(staged.glob("*.arrow"))):
            assert run.poll() is None, "the run ended before it could be killed"
            time.sleep(0.05)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert table(lake).equals(before)
    assert {row["run_id"] for row in rows(lake, "runs")} == {"r1"}

    record = score_night(archive, lake, **{"archive.night": night, "run.run_id": "second"})
    assert (record.state, record.embedded, record.reused, record.ok) == ("published", 0, 48, 48)
    assert len(rows(lake)) == len(before) + 48
    assert SMALL["encoder.weights"] == "random"  # the ids match because random weights are the same every time


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("archive.night", "2026-11-22"),
        ("encoder.image_size", 128),
        ("scoring.fraction", 0.1),
        ("scoring.max_references", 3),
        ("explain.heatmaps", "all"),
        ("mask.enabled", True),
        ("prompts.k", 3),
    ],
)
def test_a_run_id_is_not_taken_for_another_run(
    published: Published, score_night: Score, setting: str, value: Any
) -> None:
    few_shot = {"scoring.mode": "few_shot", "prompts.uri": "prompts"} if setting == "prompts.k" else {}
    with pytest.raises(SettingsError, match=rf"'r1' is already published with other settings \(.*{setting}"):
        score_night(published.archive, published.lake, **R1, **{setting: value}, **few_shot)


# tests/nightly/test_score.py compares schedules, actors, blocks and panels on the scoring stage alone.
@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_scores_do_not_depend_on_schedule_actors_or_blocks(
    tmp_path: Path, screws: dict[str, bytes], score_night_on_ray: Score, schedule: str
) -> None:
    archive = tmp_path / "archive"
    write_group(archive, NIGHT, "screw", {**good_images(20), **screws})
    score_night_on_ray(archive, tmp_path / "one", **{"resources.score_actors": 1, "resources.cpus_per_actor": 1})
    split = {"resources.score_actors": 2, "resources.cpus_per_actor": 1, "scoring.schedule": schedule}
    record = score_night_on_ray(archive, tmp_path / "two", **split)
    assert record.scoring["groups_in_blocks"] == 1
    one, two = by_id(tmp_path / "one"), by_id(tmp_path / "two")
    assert {i: r["score"] for i, r in two.items()} == pytest.approx({i: r["score"] for i, r in one.items()}, abs=1e-6)
    assert {i: r["n_references"] for i, r in two.items()} == {i: r["n_references"] for i, r in one.items()}


@pytest.mark.slow
def test_a_panel_of_references_is_the_same_in_blocks_and_whole(tmp_path: Path, score_night_on_ray: Score) -> None:
    archive = tmp_path / "archive"
    write_group(archive, NIGHT, "screw", good_images(20))
    panel = {"scoring.max_references": 8, "resources.cpus_per_actor": 1}
    score_night_on_ray(archive, tmp_path / "one", **panel, **{"resources.score_actors": 1})
    record = score_night_on_ray(archive, tmp_path / "two", **panel, **{"resources.score_actors": 2})
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


def test_a_trial_may_not_replace_a_full_run(tmp_path: Path, screws: dict[str, bytes], score_night: Score) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    write_group(archive, NIGHT, "screw", screws)
    trial = score_night(archive, tmp_path / "trial", **{"archive.limit": 6})
    assert (trial.images, trial.ok) == (6, 6)
    score_night(archive, lake)
    with pytest.raises(SettingsError, match=r"archive\.limit=6 is for trials.*lake\.uri of its own"):
        score_night(archive, lake, **{"archive.limit": 6})
    assert len(rows(lake)) == 10
