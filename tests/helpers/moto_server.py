"""A second S3 server for tests: moto's, on loopback, always stopped. It keeps all in memory and takes every key."""

from __future__ import annotations

import sys

from tests.helpers.s3_server import HOST, S3Server


class MotoServer(S3Server):
    """``with MotoServer() as server:`` is used as `S3Server`; a process of its own, as moto changes botocore in its."""

    _PORTS = ("s3",)

    def _command(self, ports: dict[str, int]) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(ports["s3"])]

    def _env(self) -> dict[str, str]:
        return {"HOME": str(self._made("home")), "TMPDIR": str(self._made("tmp")), "PATH": "/usr/bin:/bin"}
