"""A disk that is full amid a night: it ends with one message, keeps what it has, and goes on under its id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchead.errors import LakeError
from patchead.nightly.run_record import RunRecord
from patchead.storage import explained
from tests.helpers.e2e_tools import ROOT, good_images, job_environment, rows, write_group

NIGHT = "2026-11-21"


def on_a_full_disk(folder: Path, when: str) -> dict[str, Any]:
    """What `tests/helpers/full_disk.py` saw; as root, or as a user who may have namespaces."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*unshare, sys.executable, "-m", "tests.helpers.full_disk", str(folder), when]
    done = subprocess.run(command, cwd=ROOT, env=job_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "path", "kept", "reused"),
    [
        ("embed", "/embeddings/", {"pictures": 0}, 4),  # two units of two images
        ("explain", "/runs/night/explained/", {"pictures": 14}, 14),
        ("publish", "/tables/", {"pictures": 14}, 14),
    ],
)
def test_a_night_on_a_full_disk_ends_with_one_message_and_goes_on_once_there_is_room(
    tmp_path: Path, score_night: Callable[..., RunRecord], when: str, path: str, kept: dict[str, int], reused: int
) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(8))
    write_group(tmp_path / "archive", NIGHT, "nut", good_images(6, 50))
    seen = on_a_full_disk(tmp_path, when)
    stopped, went_on = seen["stopped"], seen["went_on"]
    assert stopped["code"] == 1
    assert stopped["err"].startswith("error: cannot ")
    assert stopped["err"].count("\n") == 1
    assert "No space left on device" in stopped["err"]
    assert f"{tmp_path}/{when}/lake{path}" in stopped["err"]
    assert stopped["err"].endswith("Make room there; the same run id then goes on.\n")
    assert {name: seen["kept"][name] for name in kept} == kept
    assert went_on["code"] == 0, went_on["err"]
    assert f"{14 - reused} embedded, {reused} reused" in went_on["out"]
    score_night(tmp_path / "archive", tmp_path / "expected", **{"explain.heatmaps": "all"})
    expected = {row["image_id"]: row["score"] for row in rows(tmp_path / "expected")}
    assert {row["image_id"]: row["score"] for row in seen["scores"]} == pytest.approx(expected, abs=1e-6)
    assert seen["pictures"] == 14
    assert not seen["scanned by threads of pyarrow"]  # that could abort the process as it ends, now and then


def test_on_a_full_disk_the_remedy_is_room() -> None:
    told = r"cannot write /dev/full: OSError: .*No space left on device. Make room there; the same run id"
    with pytest.raises(LakeError, match=told), explained("write", "/dev/full", LakeError):
        Path("/dev/full").write_bytes(b"a night")
