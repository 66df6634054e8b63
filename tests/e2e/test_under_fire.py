"""`jobs/load.py`: two nights of many groups on Ray while actors are killed; nothing is lost or left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.e2e_tools import ROOT


@pytest.mark.slow
def test_every_image_is_accounted_for_while_actors_are_killed(tmp_path: Path) -> None:
    words = [sys.executable, "jobs/load.py", str(tmp_path / "load"), "--images", "1000", "--kill-every", "20"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    nights = json.loads((tmp_path / "load/load.json").read_text())
    for night in nights:
        assert (night["lost"], night["left_over"], night["failed"]) == (0, [], 0)
        assert night["images"] == night["ok"] + night["skipped"] > 300
    assert any(night["killed"] for night in nights)
    assert (tmp_path / "load/memory.png").stat().st_size > 1000
