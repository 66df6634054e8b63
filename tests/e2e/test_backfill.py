"""Back-fill: many nights, each a run of its own; a poisoned one stops no other, and the same command goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchead.archive.catalog import CatalogRequest
from patchead.archive.nights import nights_of
from patchead.errors import SettingsError
from patchead.lake.run_list import list_runs
from patchead.nightly.backfill import nights_between
from patchead.storage import Storage
from tests.helpers.command import Ended, patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, good_images, rows, write_group

NIGHTS = [f"2026-01-0{day}" for day in range(1, 6)]
POISONED = NIGHTS[2]


def score(archive: Path, lake: Path, *more: str) -> Ended:
    places = ("--archive", str(archive), "--lake", str(lake), "--local")
    return patchead("score", *SMALL_OPTIONS, *places, "--night", "2026-01-01..2026-01-07", *more)


def published(lake: Path) -> list[str]:
    return sorted(run.nights[0] for run in list_runs(str(lake), Storage()) if run.state == "published")


def test_five_nights_one_poisoned(tmp_path: Path) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    for number, night in enumerate(NIGHTS):
        write_group(archive, night, "screw", good_images(6, 10 * number))
    poison = archive / f"night={POISONED}/product=screw/bad.png"
    poison.write_bytes(b"no image")

    first = score(archive, lake)
    assert first.code == 1
    assert first.err == ""
    assert published(lake) == [night for night in NIGHTS if night != POISONED]
    assert {row["run_id"] for row in rows(lake)} == {f"nightly-{night}" for night in NIGHTS if night != POISONED}
    assert f"{POISONED}: failed: 1 of 7 images failed" in first.out
    assert "7 nights: 2 no images, 4 published, 1 failed" in first.out

    asked = ("runs", "--lake", str(lake), "--gaps", "--archive", str(archive))
    gaps = patchead(*asked).out.splitlines()
    assert gaps == [POISONED, "1 of 5 nights of the archive have no published run"]

    before = {row["run_id"]: row["started_at"] for row in rows(lake, "runs")}
    poison.unlink()
    second = score(archive, lake)  # goes on: what is published is not run again
    assert second.code == 0, second.out + second.err
    assert "7 nights: 4 published before, 2 no images, 1 published" in second.out
    after = {row["run_id"]: row["started_at"] for row in rows(lake, "runs")}
    assert {run for run in after if after[run] != before.get(run)} == {f"nightly-{POISONED}"}
    assert patchead(*asked).out.splitlines() == ["0 of 5 nights of the archive have no published run"]


@pytest.mark.slow  # three processes; the nights in this process are the test above
def test_nights_at_once_are_processes_of_their_own(tmp_path: Path) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    for number, night in enumerate(NIGHTS[:3]):
        write_group(archive, night, "screw", good_images(6, 10 * number))
    (archive / f"night={POISONED}/product=screw/bad.png").write_bytes(b"no image")
    ended = score(archive, lake, "--parallel", "2", "--run-id", "again")
    assert ended.code == 1
    assert f"{NIGHTS[0]} found 6 images = 6 scored" in ended.out
    assert f"{POISONED}: failed: 1 of 7 images failed" in ended.out
    assert {row["run_id"] for row in rows(lake)} == {f"again-{night}" for night in NIGHTS[:2]}


def test_a_range_is_two_dates_in_order() -> None:
    assert [str(night) for night in nights_between("2026-02-27..2026-03-02")] == [
        *("2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02")
    ]
    for wrong in ("2026-03-02..2026-02-27", "2026-02-30..2026-03-02", "..2026-03-02"):
        with pytest.raises(SettingsError, match=r"FIRST\.\.LAST"):
            nights_between(wrong)


def test_nights_are_found_by_folders_that_are_not_entered(tmp_path: Path) -> None:
    for night in ("2026-01-02", "2026-01-01"):
        write_group(tmp_path, night, "screw", good_images(1))
    hidden = tmp_path / "night=2026-01-02"
    hidden.chmod(0)
    try:
        found = nights_of(CatalogRequest(str(tmp_path), products=("nut",)))
    finally:
        hidden.chmod(0o755)
    assert [str(night) for night in found] == ["2026-01-01", "2026-01-02"]


def test_what_a_range_cannot_do_is_refused(tmp_path: Path) -> None:
    write_group(tmp_path / "archive", "2026-01-01", "screw", good_images(1))
    for more in ("--dry-run", "--retry-failed"):
        ended = score(tmp_path / "archive", tmp_path / "lake", more)
        assert ended.code == 2
        assert more in ended.err
    ended = patchead(
        "score", *SMALL_OPTIONS, "--archive", str(tmp_path), "--lake", str(tmp_path / "x"), "--parallel", "2"
    )
    assert (ended.code, "--parallel" in ended.err) == (2, True)
