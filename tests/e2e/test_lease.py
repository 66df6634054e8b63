"""Two attempts of one run id at once: one works on it, the other one ends and says so."""

from __future__ import annotations

import datetime as dt
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from patchead.errors import LakeError
from patchead.lake import heartbeat
from patchead.lake.heartbeat import HEARTBEAT_FILE, MISSED, beat_of
from patchead.lake.lease import LeaseError, lease
from patchead.lake.staging import RunFolder
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, good_images, job_environment, rows, write_group
from tests.helpers.forked import Forked, Forkserver

NIGHT = "2026-11-21"
CODE = "import sys; from patchead.cli import main; sys.argv[0] = 'patchead'; main()"


def options(folder: Path) -> list[str]:
    places = ["--archive", str(folder / "archive"), "--lake", str(folder / "lake"), "--run-id", "night"]
    return ["score", "--local", *SMALL_OPTIONS, *places]


@contextmanager
def first_attempt(folder: Path, forkserver: Forkserver) -> Iterator[Forked]:
    """A real process that has begun to work on the run and is stopped."""
    write_group(folder / "archive", NIGHT, "screw", good_images(6))
    with forkserver.started(CODE, *options(folder), env=job_environment()) as work:
        while not (folder / "lake/runs/night/run.json").exists():
            assert work.poll() is None, work.err
            time.sleep(0.01)
        work.send_signal(signal.SIGSTOP)
        yield work


def test_the_second_of_two_attempts_ends_and_the_first_publishes(tmp_path: Path, forkserver: Forkserver) -> None:
    with first_attempt(tmp_path, forkserver) as work:
        second = patchead(*options(tmp_path))
        assert second.code == 1
        assert f"process {work.pid} on " in second.err
        assert "works on run night" in second.err
        work.send_signal(signal.SIGCONT)
        assert work.wait() == 0, work.err
    (run,) = rows(tmp_path / "lake", "runs")
    assert (run["run_id"], run["state"]) == ("night", "published")
    assert len(rows(tmp_path / "lake")) == 6


@pytest.mark.slow
def test_an_attempt_that_was_taken_over_stops_before_it_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forkserver: Forkserver
) -> None:
    """The second one is on another machine: there it can only be seen that the first has been silent for long."""
    with first_attempt(tmp_path, forkserver) as work:
        path = tmp_path / "lake/runs/night" / HEARTBEAT_FILE
        beat = json.loads(path.read_text())
        silent = dt.timedelta(seconds=beat["interval_s"] * (MISSED + 1))
        path.write_text(json.dumps(beat | {"time": (dt.datetime.fromisoformat(beat["time"]) - silent).isoformat()}))
        with monkeypatch.context() as patch:
            patch.setattr(heartbeat, "_place", lambda: "another machine")
            assert patchead(*options(tmp_path)).code == 0
        before = {file: file.stat().st_mtime_ns for file in (tmp_path / "lake/tables").rglob("*.json")}
        work.send_signal(signal.SIGCONT)
        assert work.wait() == 1
    assert "has taken over run night" in work.err
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "lake/tables").rglob("*.json")}
    assert json.loads((tmp_path / "lake/runs/night/run.json").read_text())["state"] == "published"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), Storage(), "night")


def elsewhere(interval_s: float, **more: object) -> dict[str, Any]:
    return {**beat_of(interval_s), "place": "another machine", "host": "far", "pid": 7, "owner": "other", **more}


def test_a_heartbeat_from_elsewhere_is_waited_for_until_it_has_expired(folder: RunFolder) -> None:
    folder.write_json(HEARTBEAT_FILE, elsewhere(0.05))
    told: list[str] = []
    began = time.monotonic()
    with lease(folder, "night", told.append, interval_s=0.05) as held:
        held.require()
    assert time.monotonic() - began >= 0.04 * MISSED
    assert len(told) == 1
    assert "process 7 on far" in told[0]


def test_a_clock_that_is_ahead_holds_nobody_up_for_long(folder: RunFolder) -> None:
    tomorrow = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=1)
    folder.write_json(HEARTBEAT_FILE, elsewhere(0.02, time=tomorrow.isoformat()))
    with lease(folder, "night", interval_s=0.02) as held:
        held.require()


def test_a_heartbeat_that_goes_on_is_of_somebody_at_work(folder: RunFolder) -> None:
    folder.write_json(HEARTBEAT_FILE, elsewhere(20.0))

    def beats_again(_told: str) -> None:
        folder.write_json(HEARTBEAT_FILE, elsewhere(20.0))

    with (
        pytest.raises(LeaseError, match=r"process 7 on far .* works on run night"),
        lease(folder, "night", beats_again, interval_s=0.1),
    ):
        raise AssertionError("two at once")


def test_who_was_taken_over_is_told_once_it_looks_and_leaves_the_heartbeat_alone(folder: RunFolder) -> None:
    with (
        pytest.raises(LeaseError, match=r"process 7 on far .* has taken over run night"),
        lease(folder, "night") as held,
    ):
        held.require()
        folder.write_json(HEARTBEAT_FILE, elsewhere(20.0))
        assert not held.is_ours
        held.require_unless_told()
    with folder.files.open(HEARTBEAT_FILE) as file:
        assert json.loads(file.read())["owner"] == "other"


def test_a_run_that_failed_here_can_be_tried_again_here(folder: RunFolder) -> None:
    for _ in range(2):
        with pytest.raises(LakeError, match="full"), lease(folder, "night"):
            raise LakeError("full")
    with lease(folder, "night"), pytest.raises(LeaseError, match="works on run night"), lease(folder, "night"):
        raise AssertionError("two at once")
