"""SIGTERM and SIGINT: a run ends behind its unit, says what is kept, and goes on under its id. Real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers import signalled
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import ROOT, good_images, job_command, job_environment, rows, write_group
from tests.helpers.forked import Forkserver
from tests.helpers.signalled import options

NIGHT = "2026-11-21"
SCENARIOS, SLOW_SCENARIOS = ("sigterm", "sigint"), ("stuck", "publishing")


class Ended(NamedTuple):
    """A night that got a signal."""

    folder: Path
    scenario: str
    code: int
    out: str

    @property
    def lake(self) -> Path:
        return self.folder / self.scenario / "lake"

    @property
    def units(self) -> int:
        """How many units have their receipts."""
        return len([*self.lake.glob("embeddings/*/pending/*.parquet")])

    @property
    def record(self) -> dict[str, object]:
        return dict(json.loads((self.lake / "runs/night/run.json").read_text()))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, forkserver: Forkserver) -> dict[str, Ended]:
    return _ended(tmp_path_factory.mktemp("signals"), SCENARIOS, forkserver)


@pytest.fixture(scope="module")
def ended_slowly(tmp_path_factory: pytest.TempPathFactory, forkserver: Forkserver) -> dict[str, Ended]:
    return _ended(tmp_path_factory.mktemp("slow_signals"), SLOW_SCENARIOS, forkserver)


def _ended(folder: Path, scenarios: tuple[str, ...], forkserver: Forkserver) -> dict[str, Ended]:
    write_group(folder / "archive", NIGHT, "screw", good_images(8))
    found = {}
    for name in scenarios:
        with forkserver.started(signalled.CODE, str(folder), name, env=job_environment()) as work:
            found[name] = Ended(folder, name, work.wait(), work.out + work.err)
    return found


def goes_on(night: Ended) -> str:
    """The same command again: it publishes every image, and embeds none twice."""
    before = night.units
    done = patchead(*options(night.folder, night.scenario))
    assert done.code == 0, done.err
    assert len(rows(night.lake)) == 8
    assert f"{8 - 2 * before} embedded, {2 * before} reused" in done.out
    return done.out


def test_sigterm_finishes_the_unit_in_hand_and_ends_with_its_own_code(ended: dict[str, Ended]) -> None:
    night = ended["sigterm"]
    assert night.code == 5, night.out
    assert night.units == 2  # the signal came while the second of four was written
    assert night.record["state"] == "failed"
    assert "asked to end (SIGTERM)" in str(night.record["error"])
    assert "the work in hand is finished, for at most 600 s" in night.out
    assert "--run-id night" in night.out
    assert night.out.startswith("run night\n")
    goes_on(night)


@pytest.mark.slow
def test_a_unit_that_takes_too_long_does_not_hold_the_process(ended_slowly: dict[str, Ended]) -> None:
    night = ended_slowly["stuck"]
    assert night.code == 5, night.out
    assert night.units == 1
    assert "not finished within run.grace_seconds" in night.out
    goes_on(night)


def test_sigint_says_what_is_kept_and_how_to_go_on(ended: dict[str, Ended]) -> None:
    night = ended["sigint"]
    assert night.code == 130, night.out
    assert "interrupted (SIGINT). What was listed, embedded, scored and drawn so far is kept" in night.out
    assert "--run-id night" in night.out
    assert night.record["state"] == "failed"
    goes_on(night)


@pytest.mark.slow
def test_a_publication_that_has_begun_is_finished(ended_slowly: dict[str, Ended]) -> None:
    night = ended_slowly["publishing"]
    assert night.code == 0, night.out
    assert len(rows(night.lake)) == 8
    assert "already published" in patchead(*options(night.folder, night.scenario)).out


@pytest.mark.slow
def test_sigterm_on_ray_ends_with_its_own_code_and_the_run_goes_on(tmp_path: Path) -> None:
    """Ray takes SIGTERM for itself when it starts, and ends the process with 15."""
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(40))
    lake = tmp_path / "lake"
    places = ["--archive", str(tmp_path / "archive"), "--lake", str(lake), "--run-id", "night"]
    command = [*job_command(*places), "--set=lake.images_per_file=2"]
    with subprocess.Popen(command, cwd=ROOT, env=job_environment(), stdout=subprocess.PIPE, text=True) as work:
        while not [*lake.glob("embeddings/*/pending/*.parquet")]:
            assert work.poll() is None
            time.sleep(0.01)
        work.send_signal(signal.SIGTERM)
        out, _ = work.communicate()
    assert work.returncode == 5, out
    kept = len([*lake.glob("embeddings/*/pending/*.parquet")])
    assert kept
    done = patchead("score", "--local", *command[2:])
    assert done.code == 0, done.err
    assert f"{2 * kept} reused" in done.out
    assert len(rows(lake)) == 40
