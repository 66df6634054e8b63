"""Ray's object store is full amid a night: it spills; where the disk is full too, the night ends, and goes on later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from patchead.nightly.run_record import RunRecord
from tests.helpers.e2e_tools import ROOT, good_images, job_environment, rows, write_group

NIGHT = "2026-11-21"


@pytest.mark.slow
def test_a_full_object_store_spills_and_with_a_full_disk_ends_the_night_with_one_message(
    tmp_path: Path, score_night: Callable[..., RunRecord]
) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(40))
    write_group(tmp_path / "archive", NIGHT, "nut", good_images(40, 50))
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*unshare, sys.executable, "-m", "tests.helpers.full_object_store", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=job_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["spilled"]["code"] == 0, seen["spilled"]["err"]
    assert seen["spilled bytes"] > 10**6
    stopped, went_on = seen["stopped"], seen["went_on"]
    assert stopped["code"] == 1, stopped
    assert stopped["err"].startswith("error: decoding and embedding failed: OutOfDiskError: Local disk is full")
    assert stopped["err"].endswith("Run again under the same run id: what was finished is kept.\n")
    assert stopped["err"].count("\n") == 1
    assert went_on["code"] == 0, went_on["err"]
    score_night(tmp_path / "archive", tmp_path / "expected", **{"encoder.image_size": 448})
    expected = {row["image_id"]: row["score"] for row in rows(tmp_path / "expected")}
    assert seen["scores"] == pytest.approx(expected, abs=1e-6)
