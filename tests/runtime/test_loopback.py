"""The Ray that a night starts on one machine listens on loopback alone: nobody on the network reaches its ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.e2e_tools import SMALL_OPTIONS, good_images, job_environment, write_group

CODE = """
import os, sys
import ray
from patchead.runtime.session import ray_session

with ray_session(1):
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    print("ready", [node["MetricsExportPort"] for node in ray.nodes()][0], flush=True)
    sys.stdin.readline()

assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
"""
LISTEN = "0A"


def family(pid: int) -> set[int]:
    """A process and all that it has started."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(pids: set[int]) -> dict[int, str]:
    """The ports on which processes listen, with the address in hex digits as /proc has it."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found[int(port, 16)] = address
    return found


@pytest.mark.slow
def test_a_night_on_ray_writes_nothing_to_stderr_and_rays_lines_into_the_log(tmp_path: Path) -> None:
    """The lines of a started Ray, of the actors that Ray Data makes, and of its progress bars."""
    write_group(tmp_path / "archive", "2026-11-21", "screw", good_images(6))
    score = [sys.executable, "-m", "patchead", "score", *SMALL_OPTIONS, "--set=resources.local_cpus=2"]
    for level in ("off", "info"):
        places = ["--archive", str(tmp_path / "archive"), "--lake", str(tmp_path / level)]
        command = [*score, *places, f"--set=run.log_level={level}"]
        done = subprocess.run(command, env=job_environment(), capture_output=True, text=True, check=True)
        if level == "off":
            assert done.stderr == ""
    told = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert any("Ray: Started a local Ray instance" in line for line in told)
    assert any("Ray: Progress bars disabled" in line for line in told)


def test_every_listener_is_bound_to_loopback_and_nothing_is_told(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    pipe, told = subprocess.PIPE, tmp_path / "stderr"
    with (
        told.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-c", CODE], stdin=pipe, stdout=pipe, stderr=file, text=True, env=environment
        ) as work,
    ):
        assert work.stdin is not None
        assert work.stdout is not None
        line = work.stdout.readline()
        while line and not line.startswith("ready"):
            line = work.stdout.readline()
        ports = listening(family(work.pid))
        work.stdin.write("\n")
        work.stdin.close()
    assert (work.returncode, told.read_text()) == (0, "")
    loopback = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
    assert {port: address for port, address in ports.items() if address not in loopback} == {}
    assert int(line.split()[1]) in ports  # metrics
    assert len(ports) > 5
