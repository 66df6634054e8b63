"""A Ray node is killed in the middle of a night and not replaced: the same tables, by the node that is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchead.nightly.run_record import RunRecord
from tests.helpers.e2e_tools import ROOT, good_images, png, rows, spoiled, write_group

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"
LARGE = {"encoder.image_size": 224, "lake.images_per_file": 4}
OF_THE_RUN = {"run_id", "heatmap_path"}


def lose(archive: Path, lake: Path, when: str, head_cpus: int, **settings: Any) -> dict[str, Any]:
    """The night in a process of its own: its record, the warnings, and what was done when the node was killed."""
    given = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    command = [sys.executable, "tests/helpers/losing_a_node.py", archive, lake, when, str(head_cpus), *given]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"record"')]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[-1])


def assert_same_tables(lake: Path, expected: Path) -> None:
    for table in ("scores", "regions"):
        pairs = zip(plain(lake, table), plain(expected, table), strict=True)
        assert all(left == pytest.approx(right, abs=1e-5) for left, right in pairs)


def plain(lake: Path, table: str) -> list[dict[str, Any]]:
    found = sorted(rows(lake, table), key=lambda row: (row["image_id"], row.get("region", 0)))
    return [{name: value for name, value in row.items() if name not in OF_THE_RUN} for row in found]


@pytest.fixture
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """One large group, or many small ones."""
    groups, size = (1, 95) if request.param == "large" else (16, 5)
    for number in range(groups):
        images = good_images(size, 100 * number) | {"spoiled.png": png(spoiled(1000 + number))}
        write_group(tmp_path / "archive", NIGHT, f"p{number:02d}", images)
    return tmp_path / "archive"


@pytest.mark.slow  # two minutes each on two busy cores
@pytest.mark.parametrize(("archive", "when"), [("large", "embed"), ("large", "8"), ("many", "6")], indirect=["archive"])
def test_a_node_lost_and_not_replaced_changes_nothing(
    archive: Path, when: str, tmp_path: Path, score_night: Score
) -> None:
    score_night(archive, tmp_path / "expected", **LARGE)
    ended = lose(archive, tmp_path / "lake", when, 1, **LARGE)
    assert ended["killed"]
    assert ended["record"]["state"] == "published"
    assert any("nodes are gone" in line for line in ended["told"])
    assert when == "embed" or ended["record"]["scoring"]["tasks_redone"] >= 1
    assert "warning: nodes were lost: going on with 1 of 3 actors" in ended["told"]
    assert_same_tables(tmp_path / "lake", tmp_path / "expected")


@pytest.mark.slow
@pytest.mark.parametrize("archive", ["many"], indirect=True)
@pytest.mark.parametrize("when", ["embed", "6"])
def test_without_any_node_left_it_ends_and_the_same_run_goes_on(
    archive: Path, when: str, tmp_path: Path, score_night: Score
) -> None:
    score_night(archive, tmp_path / "expected", **LARGE)
    settings = LARGE | {"run.run_id": "a", "resources.wait_minutes": 0.05}
    ended = lose(archive, tmp_path / "lake", when, 0, **settings)
    assert ended["record"]["state"] == "WorkerError"
    assert "no node has room for an actor any more" in ended["record"]["error"]
    assert not (tmp_path / "lake/tables/scores").exists()
    record = score_night(archive, tmp_path / "lake", **settings)
    assert (record.state, record.failed) == ("published", 0)
    assert record.reused >= (1 if when == "embed" else record.images)
    assert_same_tables(tmp_path / "lake", tmp_path / "expected")
