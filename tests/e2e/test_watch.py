"""`patchead watch` serves what there is to know of a lake, and says so when it cannot be read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from patchead.commands.watched import Watched
from patchead.errors import LakeError
from patchead.lake.heartbeat import beat_of
from patchead.storage import Storage
from tests.helpers.e2e_tools import ROOT, job_environment
from tests.helpers.s3_server import free_ports


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two runs without tables: one failed, one that this process works on."""
    for name, state in (("a", "failed"), ("b", "running")):
        folder = tmp_path / "lake/runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"state": state, "nights": ["2026-11-21"]}))
    (tmp_path / "lake/runs/b/heartbeat.json").write_text(json.dumps(beat_of(20.0)))
    return tmp_path / "lake"


def test_runs_heartbeats_and_bytes(lake: Path) -> None:
    seen = Watched(str(lake), Storage())
    seen.look(with_bytes=True)

    def value(name: str, **labels: str) -> float | None:
        return seen.registry.get_sample_value(f"patchead_lake_{name}", labels)

    assert {state: value("runs", state=state) for state in ("failed", "running", "dead")} == {
        **{"failed": 1.0, "running": 1.0, "dead": 0.0}
    }
    assert 0 <= (value("heartbeat_age_seconds", run_id="b") or 0) < 3600
    assert value("heartbeat_age_seconds", run_id="a") is None
    sizes = sum(path.stat().st_size for path in (lake / "runs").rglob("*.json"))
    assert (value("bytes", folder="runs"), value("bytes", folder="tables")) == (sizes, 0)
    assert value("up") == 1
    (lake / "runs/b/run.json").write_text("{}")
    (lake / "runs/b/heartbeat.json").unlink()
    seen.look(with_bytes=False)
    assert (value("runs", state="running"), value("heartbeat_age_seconds", run_id="b")) == (0, None)


def test_a_lake_that_cannot_be_read_is_down() -> None:
    storage = Storage(endpoint_url="http://127.0.0.1:9", attempts=1)
    seen = Watched("s3://nowhere/lake", storage)
    with pytest.raises(LakeError):
        seen.look(with_bytes=False)
    assert seen.registry.get_sample_value("patchead_lake_up") == 0


@pytest.mark.slow  # a process of its own; what it serves is the test above
def test_it_is_served(lake: Path) -> None:
    (port,) = free_ports(1)
    code = "import sys; from patchead.cli import main; sys.argv[0] = 'patchead'; main()"
    command = [sys.executable, "-c", code, "watch", "--lake", str(lake), "--port", str(port), "--every", "0.1"]
    with subprocess.Popen(command, cwd=ROOT, env=job_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f":{port}/metrics" in process.stdout.readline()
        text = ""
        while "patchead_lake_up 1.0" not in text:
            assert process.poll() is None
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                text = answer.read().decode()
        process.send_signal(signal.SIGTERM)
    assert 'patchead_lake_runs{state="failed"} 1.0' in text
