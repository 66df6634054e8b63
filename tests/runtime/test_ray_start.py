"""Ray that does not start in the time that it gives itself: tried again, and one line in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import ray

from patchead.errors import PatcheadError
from patchead.runtime.ray_start import connect
from tests.helpers.e2e_tools import ROOT, job_environment


@pytest.mark.slow  # it starts Ray five times
def test_a_ray_that_is_late_is_started_again_and_ends_with_one_line() -> None:
    command = [sys.executable, "-m", "tests.helpers.late_ray"]
    done = subprocess.run(command, cwd=ROOT, env=job_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["for ever"].startswith("Ray cannot be started on this machine; --local works without it: ")
    assert "imed out" in seen["for ever"]
    assert "\n" not in seen["for ever"]
    assert (seen["tries"], seen["all tries"], seen["cpus"], seen["left"]) == (3, 5, 1, False)


def test_a_node_that_was_late_is_one_line_and_our_own_mistakes_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # that of the other tests goes on

    def fails(exc: Exception) -> None:
        def init(**_: Any) -> None:
            raise exc

        monkeypatch.setattr(ray, "init", init)

    fails(Exception("The current node timed out during startup."))  # as Ray 2.60 has it, a bare one
    with pytest.raises(PatcheadError, match=r"RAY_ADDRESS=127\.0\.0\.1:9: Exception: The current node timed out"):
        connect({})
    fails(TypeError("a mistake"))
    with pytest.raises(TypeError, match="a mistake"):
        connect({})
