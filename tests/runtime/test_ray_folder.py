"""Ray's own folder has no room: refused at the start, told and waited for later, and never for ever."""

from __future__ import annotations

import re

import pytest
import ray
from ray.exceptions import WorkerCrashedError

from patchead.errors import WorkerError
from patchead.runtime import ray_folder
from patchead.runtime.lost_nodes import Stall
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.ray_folder import RayFolder, require_room
from patchead.runtime.worker_errors import told
from tests.helpers.actors import twice

NO_ROOM = r"Ray starts no process, as the disk of its folder (?P<folder>\S+) has (?P<free>\d+) bytes left"


def test_with_room_nothing_is_told(local_ray: None) -> None:
    require_room()
    RayFolder(0, pytest.fail).check()


def test_without_room_nothing_begins(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_folder, "LEAST", 2**62)
    with (
        pytest.raises(WorkerError, match=NO_ROOM + r"\. Make room on that disk.*same run id") as refused,
        RayExecutor().session(),
    ):
        pass
    found = re.match(NO_ROOM, str(refused.value))
    assert found is not None
    assert "session_" in found["folder"]
    assert int(found["free"]) < 2**62


def test_a_wait_for_room_is_told_and_ends(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_folder, "LEAST", 2**62)
    monkeypatch.setattr("patchead.runtime.lost_nodes.PATIENCE", 0.0)
    monkeypatch.setattr("patchead.runtime.lost_nodes._LOOK_EVERY", 0.05)
    told: list[str] = []
    stall = Stall(RayFolder(0.01, told.append))
    never = ray.remote(num_cpus=99)(twice).remote(1)
    with pytest.raises(
        WorkerError, match=NO_ROOM + r", and there was none for the 0\.01 minutes of resources\.wait_minutes"
    ):
        stall.first([never])
    ray.cancel(never, force=True)
    assert len(told) == 1
    assert re.fullmatch("warning: " + NO_ROOM + "; waiting up to 0.01 minutes for some", told[0])


def test_a_process_that_dies_there_says_why(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_folder, "LEAST", 2**62)
    told_of = told(WorkerCrashedError(), "a worker")
    assert re.match(NO_ROOM + r", and a worker failed: WorkerCrashedError\. Make room on that disk", str(told_of))
    assert re.match(r"^a worker failed: ValueError: odd", str(told(ValueError("odd"), "a worker")))
