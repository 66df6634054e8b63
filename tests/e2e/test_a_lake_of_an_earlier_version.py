"""A lake that version 2 of the tables wrote is read by every view, and nights, `gc`, `accept` and `feedback` go on.

tests/data/lake_of_version_2.tar.xz was written at commit 9cb0027: run `both` of two nights, `again` of the second,
`refused`, which failed; a label, and `again` accepted as `november`. It has been moved since.
"""

from __future__ import annotations

import datetime as dt
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchead.lake.collect import Retention, collect
from patchead.lake.query import query
from patchead.lake.run_list import list_runs
from patchead.lake.tables import VERSION_NOTE, open_table
from patchead.nightly.run_record import RunRecord
from patchead.schema import TABLES
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import good_images, png, rows, spoiled, write_group

DATA = Path(__file__).parent.parent / "data/lake_of_version_2.tar.xz"
FIRST, SECOND, THIRD = (dt.date(2026, 11, day) for day in (19, 20, 21))
SETTINGS = {
    "encoder.name": "timm/vit_tiny_patch16_224",
    "encoder.image_size": 32,
    "explain.top": 1,
    "explain.max_side": 32,
}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    with tarfile.open(DATA) as archived:
        archived.extractall(tmp_path, filter="data")
    return tmp_path / "lake"


def asked(lake: Path, sql: str) -> list[dict[str, Any]]:
    return query(str(lake), Storage(), sql).to_pylist()


def check(lake: Path) -> None:
    """What its own nights were, whoever asks."""
    found = asked(lake, f"FROM latest WHERE night <= DATE '{SECOND}' ORDER BY image_id")
    assert [row["run_id"] for row in found] == ["both"] * 6 + ["again"] * 13
    for row in found:
        assert row["lane"] == "main"
        assert row["path"] == row["image_id"]
        assert row["uri"] == f"/factory/archive/{row['image_id']}"
        assert (row["heatmap_uri"] is None) == (row["heatmap_path"] is None)
        assert row["heatmap_path"] is None or Path(row["heatmap_uri"]) == lake / row["heatmap_path"]
    drawn = [row for row in found if row["heatmap_path"]]
    assert [Path(row["path"]).name for row in drawn] == ["bad.png"] * 3
    assert all(Path(row["heatmap_uri"]).exists() for row in drawn)
    assert all(row["threshold_score"] is not None for row in found if row["status"] == "ok")
    runs = asked(lake, f"FROM runs WHERE night <= DATE '{SECOND}' ORDER BY run_id, night")
    told = [(row["run_id"], row["night"], row["state"], row["images"], row["failed"]) for row in runs]
    assert told == [
        ("again", SECOND, "published", 13, 1),
        ("both", FIRST, "published", 6, 0),
        ("both", SECOND, "published", None, None),  # what another run has replaced is not there to be counted
        ("refused", SECOND, "failed", 13, 1),
    ]
    assert {row["archive_uri"] for row in runs} == {"/factory/archive"}
    assert all(row["seconds"] >= 0 for row in runs)
    worst = asked(lake, f"FROM worst WHERE night <= DATE '{SECOND}' LIMIT 2")
    assert [Path(row["image_id"]).name for row in worst] == ["bad.png"] * 2
    assert [row["status"] for row in asked(lake, "FROM failed")] == ["failed"]
    assert len(asked(lake, f"FROM drift WHERE night <= DATE '{SECOND}'")) == 3
    assert len(asked(lake, f"FROM regions WHERE night <= DATE '{SECOND}'")) == 3
    assert asked(lake, "SELECT verdict FROM feedback JOIN latest USING (image_id)") == [{"verdict": "defect"}]
    assert asked(lake, "SELECT DISTINCT name FROM accepted") == [{"name": "november"}]


def night(tmp_path: Path, score_night: Callable[..., RunRecord], date: dt.date, **settings: Any) -> RunRecord:
    for seed, product in enumerate(("nut", "screw")):
        images = {**good_images(5, 100 * seed + 10 * (date.day - 19)), "bad.png": png(spoiled(7))}
        write_group(tmp_path / "archive", str(date), product, images)
    asked_for = SETTINGS | {"archive.night": str(date)} | settings
    return score_night(tmp_path / "archive", tmp_path / "lake", **asked_for)


@pytest.mark.slow
def test_it_is_read_a_night_is_published_into_it_and_the_rest_goes_on(
    lake: Path, tmp_path: Path, score_night: Callable[..., RunRecord]
) -> None:
    check(lake)
    assert [(run.run_id, run.state) for run in list_runs(str(lake), Storage())] == [
        ("refused", "failed"), ("again", "published"), ("both", "published"),
    ]  # fmt: skip
    record = night(tmp_path, score_night, THIRD, **{"scoring.references": "accepted", "scoring.alpha": 0.4})
    assert (record.ok, record.embedded) == (12, 12)  # what was read by another `READING` is read anew
    check(lake)
    for name in TABLES:
        table = open_table(str(lake), Storage(), name)
        assert table is not None and table.metadata().description == VERSION_NOTE
    raw = {row["image_id"]: row for row in rows(lake) if row["night"] == FIRST}
    assert all((row["lane"], row["path"]) == ("main", image) for image, row in raw.items())
    for row in rows(lake, "regions"):
        assert (row["rel_x"], row["rel_width"]) == (row["x"] / 48, row["width"] / 48)
        assert (row["rel_y"], row["rel_height"]) == (row["y"] / 48, row["height"] / 48)
    newest = asked(lake, f"FROM latest WHERE night = DATE '{THIRD}'")
    assert {row["uri"] for row in newest} == {str(tmp_path / "archive" / row["image_id"]) for row in newest}
    assert {row["accepted"] for row in asked(lake, f"FROM verdicts WHERE night = DATE '{THIRD}'")} == {"november"}

    again = night(tmp_path, score_night, FIRST)  # replaces what version 2 published
    assert (again.ok, again.embedded, again.reused) == (12, 10, 2)  # the defects are those of the night before
    assert {row["run_id"] for row in rows(lake) if row["night"] == FIRST} == {again.run_id}
    labels = tmp_path / "labels.csv"
    labels.write_text(f"image_id,verdict\nnight={FIRST}/product=nut/good000.png,good\n")
    assert patchead("feedback", str(labels), "--lake", str(lake)).code == 0
    assert patchead("accept", again.run_id, "--name", "later", "--lake", str(lake)).code == 0
    assert patchead("thresholds", "--lake", str(lake)).code == 0
    before = {row["heatmap_path"] for row in rows(lake)}
    freed = {each.what.split()[0]: each for each in collect(str(lake), Storage(), Retention(9, 0, 0, 0, 0), apply=True)}
    assert freed["heatmaps"].files == 3  # of both, replaced by again and by the first night's new run
    assert all((lake / path).exists() for path in before - {None})
    assert len(asked(lake, "FROM latest")) == 12 + 13 + 12


@pytest.mark.slow
def test_gc_takes_it_to_this_version_too(lake: Path) -> None:
    check(lake)
    assert [freed.what for freed in collect(str(lake), Storage(), Retention(9, 99, 99, 99, 99), apply=True)]
    table = open_table(str(lake), Storage(), "scores")
    assert table is not None and table.metadata().description == VERSION_NOTE
    check(lake)
