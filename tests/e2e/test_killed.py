"""A run killed with -9 before it publishes leaves the tables as they were, and the same run id goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from e2e_tools import ROOT, SMALL, good_images, job_command, job_environment, rows, table, write_group

from patchead.pipeline.record import RunRecord

NIGHT = "2026-11-21"


def test_killed_before_publish(tmp_path: Path, score_night: Callable[..., RunRecord]) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    write_group(archive, "2026-11-20", "screw", good_images(6))
    score_night(archive, lake, **{"run.run_id": "first"})
    before = table(lake)

    for product in "abcdef":
        write_group(archive, NIGHT, product, good_images(8, first_seed=10 * ord(product)))
    arguments = ["--archive", str(archive), "--lake", str(lake), "--night", NIGHT, "--run-id", "second"]
    staged = lake / "runs/second/groups"
    run = subprocess.Popen(
        job_command(*arguments),
        cwd=ROOT,
        env=job_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while not (staged.exists() and any(staged.glob("*.arrow"))):
            assert run.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "no group was scored in time"
            time.sleep(0.05)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert table(lake).equals(before)
    assert [row["run_id"] for row in rows(lake, "runs")] == ["first"]

    record = score_night(archive, lake, **{"archive.night": NIGHT, "run.run_id": "second"})
    assert (record.state, record.embedded, record.reused, record.ok) == ("published", 0, 48, 48)
    assert len(rows(lake)) == 6 + 48
    assert SMALL["encoder.weights"] == "random"  # the ids match because random weights are the same every time
