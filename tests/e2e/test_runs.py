"""`patchead runs` and the table of runs say what became of every night: also of the one that was killed."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from patchead.errors import TooManyFailuresError
from patchead.lake.heartbeat import INTERVAL_S, heartbeat, is_alive, this_process
from patchead.lake.run_list import list_runs, true_state
from patchead.nightly.run_record import RunRecord
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import ROOT, SMALL_OPTIONS, good_images, job_environment, rows, write_group
from tests.helpers.forked import Forkserver
from tests.helpers.warm_python import python

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"


def states(lake: Path) -> dict[str, str]:
    return {run.run_id: run.state for run in list_runs(str(lake), Storage())}


def test_a_run_is_running_while_it_works_dead_when_killed_and_published_in_the_end(
    tmp_path: Path, forkserver: Forkserver
) -> None:
    """A real process, stopped so that it is seen at work, then killed by SIGKILL, then tried again."""
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(6))
    lake = tmp_path / "lake"
    options = ["--local", "--archive", str(tmp_path / "archive"), "--lake", str(lake), "--run-id", "night"]
    code = "import sys; from patchead.cli import main; sys.argv[0] = 'patchead'; main()"
    with forkserver.started(code, "score", *SMALL_OPTIONS, *options, env=job_environment()) as work:
        while not (lake / "runs/night/run.json").exists():
            assert work.poll() is None
            time.sleep(0.01)
        work.send_signal(signal.SIGSTOP)
        assert states(lake) == {"night": "running"}
        work.send_signal(signal.SIGKILL)
        work.wait()
    assert json.loads((lake / "runs/night/run.json").read_text())["state"] == "running"
    (run,) = list_runs(str(lake), Storage())
    assert run.state == "dead"
    assert str(work.pid) in (run.reason or "")
    assert patchead("score", *SMALL_OPTIONS, *options).code == 0
    assert states(lake) == {"night": "published"}


def test_a_failed_night_is_a_row_until_the_same_run_is_published(tmp_path: Path, score_night: Score) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(6) | {"bad.png": b"no image"})
    with pytest.raises(TooManyFailuresError):
        score_night(tmp_path / "archive", tmp_path / "lake", **{"run.run_id": "a"})
    (row,) = rows(tmp_path / "lake", "runs")
    assert (row["state"], row["night"], row["images"], row["failed"]) == ("failed", dt.date(2026, 11, 21), 7, 1)
    assert "1 of 7 images failed" in row["reason"]
    assert states(tmp_path / "lake") == {"a": "failed"}
    score_night(tmp_path / "archive", tmp_path / "lake", **{"run.run_id": "a", "run.max_failed_fraction": 0.5})
    (row,) = rows(tmp_path / "lake", "runs")
    assert (row["state"], row["reason"], row["night"]) == ("published", None, dt.date(2026, 11, 21))
    assert states(tmp_path / "lake") == {"a": "published"}


def test_a_run_over_two_nights_names_both(tmp_path: Path, score_night: Score) -> None:
    for night in (NIGHT, "2026-11-22"):
        write_group(tmp_path / "archive", night, "screw", good_images(6, int(night[-2:])))
    (tmp_path / "archive/night=2026-11-22/product=screw/torn.png").write_bytes(b"no image")
    prices = {"run.price_per_cpu_hour": 3.6, "run.price_per_gpu_hour": 72, "run.max_failed_fraction": 0.5}
    score_night(tmp_path / "archive", tmp_path / "lake", **prices)
    found = sorted(rows(tmp_path / "lake", "runs"), key=lambda row: row["night"])
    assert [(row["night"].day, row["images"], row["ok"], row["embedded"]) for row in found] == [
        (21, 6, 6, 6),
        (22, 7, 6, 6),
    ]
    counts = ("failed", "skipped", "reused", "groups", "anomalous")
    assert [[row[name] for name in counts] for row in found] == [[0, 0, 0, 1, 0], [1, 0, 0, 1, 0]]
    assert [row["seconds"] > 0 and row["cpu_seconds"] > 0 for row in found] == [True, True]
    for row in found:  # by their images
        assert row["cost"] == pytest.approx(3.6 * row["cpu_seconds"] / 3600 + 72 * row["gpu_seconds"] / 3600)
        assert row["seconds"] / found[0]["seconds"] == pytest.approx(row["images"] / 6)
        assert row["archive_uri"] == str(tmp_path / "archive")
    (run,) = list_runs(str(tmp_path / "lake"), Storage())
    assert (run.nights, run.images, run.failed) == ((NIGHT, "2026-11-22"), 13, 1)


def test_published_in_the_tables_is_published_whatever_run_json_says(tmp_path: Path, score_night: Score) -> None:
    """Killed between the last commit and the end: the record says running for ever."""
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(6))
    score_night(tmp_path / "archive", tmp_path / "lake", **{"run.run_id": "a"})
    path = tmp_path / "lake/runs/a/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running"}))
    assert states(tmp_path / "lake") == {"a": "published"}


@pytest.fixture
def lake_of_runs(tmp_path: Path) -> Path:
    for number, (run_id, state, error) in enumerate(
        [
            ("20261121T031500Z-4f9a21", "published", None),
            ("20261122T031500Z-4f9a22", "failed", "cannot read s3://K:Zx9@b: \x1b[31m" + "the store said no. " * 20),
            ("20261123T031500Z-4f9a23", "running", None),
            ("20261124T031500Z-4f9a24", "stopped after embed", None),
        ]
    ):
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True)
        record = {"state": state, "error": error, "started_at": f"2026-11-2{number + 1}T03:15:00+00:00", "images": 1200}
        (folder / "run.json").write_text(json.dumps(record | {"nights": [f"2026-11-2{number}"], "failed": number}))
    return tmp_path


def test_piped_every_run_is_one_line_with_its_reason(lake_of_runs: Path) -> None:
    ended = patchead("runs", "--lake", str(lake_of_runs), env={"COLUMNS": "80"})
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines] == ["state", "stopped", "dead", "failed", "published"]
    assert lines[3].endswith("the store said no.")
    assert "Zx9" not in ended.out
    assert "\x1b" not in ended.out
    assert "it left no heartbeat" in lines[2]


def test_in_a_terminal_nothing_is_wider_than_80_columns(lake_of_runs: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    code = "import sys; from patchead.cli import main; sys.argv[0] = 'patchead'; main()"
    command = [*python(), "-c", code, "runs", "--lake", str(lake_of_runs)]
    environment = job_environment() | {"COLUMNS": "80", "TERM": "dumb"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=follower, stderr=follower) as work:
        os.close(follower)
        data = bytearray()
        try:
            while part := os.read(leader, 4096):
                data += part
        except OSError:  # the other end was closed
            pass
    os.close(leader)
    lines = data.decode().splitlines()
    assert work.returncode == 0, lines
    assert max(map(len, lines)) <= 80
    assert sum("the store said no" in line for line in lines) > 3


@pytest.mark.parametrize(
    ("recorded", "row", "alive", "state"),
    [
        ("running", None, True, "running"),
        ("running", None, False, "dead"),
        ("running", "published", False, "published"),
        ("running", "failed", True, "running"),
        ("running", "failed", False, "dead"),
        ("failed", None, False, "failed"),
        (None, "failed", False, "failed"),
        (None, None, False, "dead"),
        (None, None, True, "running"),
        ("stopped after embed", None, False, "stopped after embed"),
    ],
)
def test_the_true_state(recorded: str | None, row: str | None, alive: bool, state: str) -> None:
    assert true_state(recorded, row, alive=alive) == state


def test_a_heartbeat_from_elsewhere_is_judged_by_its_age_and_one_from_here_by_its_process() -> None:
    now = dt.datetime.now(dt.timezone.utc)
    here = {**this_process(), "time": (now - dt.timedelta(days=1)).isoformat(), "interval_s": INTERVAL_S}
    assert is_alive(here)
    assert not is_alive({**here, "started": here["started"] + 1})  # another process has its number by now
    there = {**here, "place": "another machine", "time": now.isoformat()}
    assert is_alive(there)
    assert not is_alive(there, now + dt.timedelta(seconds=7 * INTERVAL_S))
    assert not is_alive(None)


def test_heartbeats_go_on_until_the_block_ends() -> None:
    times: list[str] = []
    with heartbeat(lambda name, value: times.append(value["time"]), interval_s=0.01):
        while len(times) < 4:
            time.sleep(0.01)
    count = len(times)
    time.sleep(0.05)
    assert len(times) == count
    assert times == sorted(times)
