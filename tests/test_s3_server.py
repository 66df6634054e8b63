"""The test server itself: it says why it did not start, and it never outlives its user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.s3_server import S3Server, free_ports


class Broken(S3Server):
    def _command(self, ports: dict[str, int]) -> list[str]:
        return ["sh", "-c", "echo the disk is full >&2; exit 3"]


def test_a_server_that_does_not_start_quotes_its_log() -> None:
    server = Broken()
    with pytest.raises(RuntimeError, match="code 3:\nthe disk is full"), server:
        pass
    assert not server.folder.exists()


LATE = "it ended by itself"


class Idle(S3Server):
    """Another process in the server's place: what is tested is who ends it. Whom nobody ends leaves a file."""

    def _command(self, ports: dict[str, int]) -> list[str]:
        return [sys.executable, "-c", f"import time; time.sleep(60); open({LATE!r}, 'w')"]

    def _wait_until_it_stores(self) -> None:
        return


def test_the_server_ends_with_its_user() -> None:
    with Idle() as server:
        pid = server._process.pid
        assert _runs(pid)
    assert not _runs(pid)
    assert not server.folder.exists()


def test_the_server_ends_with_a_process_that_is_killed() -> None:
    code = "from test_s3_server import Idle\nwith Idle() as s: print(s._process.pid, s.folder, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    ) as user:
        assert user.stdout is not None
        pid, folder = user.stdout.readline().split()
        user.kill()
    while _runs(int(pid)):
        time.sleep(0.05)
    nobody_ended_it = (Path(folder) / LATE).exists()
    shutil.rmtree(folder)
    assert not nobody_ended_it


def test_free_ports_are_free_and_differ() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
