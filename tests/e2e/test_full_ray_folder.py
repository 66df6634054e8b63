"""The disk of Ray's own folder has no byte left: a night is refused or ends with the reason, and goes on later."""

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

NO_ROOM = "error: Ray starts no process, as the disk of its folder /tmp/ray"


@pytest.mark.slow
def test_a_night_without_room_for_rays_own_files_ends_with_one_message_and_goes_on(
    tmp_path: Path, score_night: Callable[..., RunRecord]
) -> None:
    write_group(tmp_path / "archive", "2026-11-21", "screw", good_images(8))
    write_group(tmp_path / "archive", "2026-11-21", "nut", good_images(8, 50))
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*unshare, sys.executable, "-m", "tests.helpers.full_ray_folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=job_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    refused, stopped, went_on = seen["refused"], seen["stopped"], seen["went_on"]
    for ended in (refused, stopped):
        assert ended["code"] == 1, ended
        assert ended["err"].startswith(NO_ROOM), ended
        assert " bytes left" in ended["err"]
        assert ended["err"].endswith("Run again under the same run id: what was finished is kept.\n")
        assert ended["err"].count("\n") == 1
    # Ray starts nothing, or a process that dies at once: it opens its logs.
    waited = "and there was none for the 0.1 minutes of resources.wait_minutes" in stopped["err"]
    assert waited or " failed: WorkerCrashedError" in stopped["err"]
    assert not waited or "warning: Ray starts no process" in stopped["out"]
    assert went_on["code"] == 0, went_on["err"]
    assert "0 embedded, 16 reused" in went_on["out"]
    score_night(tmp_path / "archive", tmp_path / "expected")
    expected = {row["image_id"]: row["score"] for row in rows(tmp_path / "expected")}
    assert seen["scores"] == pytest.approx(expected, abs=1e-6)
