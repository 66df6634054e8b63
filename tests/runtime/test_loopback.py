"""The Ray that a night starts on one machine listens on loopback alone: nobody on the network reaches its ports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
