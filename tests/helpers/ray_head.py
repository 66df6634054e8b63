"""One node of Ray with a job server and a metrics agent, on loopback and free ports, with or without a token."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.s3_server import free_ports

RAY = Path(sys.executable).parent / "ray"


@dataclass(frozen=True)
class RayHead:
    """Where it is: ``address`` for drivers, ``dashboard`` for jobs, ``metrics`` for Prometheus."""

    address: str
    dashboard: str
    metrics: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]


@contextmanager
def ray_head(
    folder: Path, *, num_cpus: int, token: str | None = None, driver: int = 0, **variables: str
) -> Iterator[RayHead]:
    """Start a head node with so much of the resource ``driver``, wait until it takes jobs, and end it."""
    port, dashboard, client, agent, grpc, metrics = free_ports(6)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env = kept | {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_worker_niceness": "0", "HOME": str(folder), **variables}
    env["PATH"] = f"{RAY.parent}:{env['PATH']}"  # as in a shell with the environment activated: jobs say `python`
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    command = [RAY, "start", "--head", "--block", f"--num-cpus={num_cpus}", "--node-ip-address=127.0.0.1"]
    command += [f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]  # 0: any free port
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
    command += [f"--metrics-export-port={metrics}", f"--object-store-memory={300 * 10**6}"]
    command += [f"--resources={json.dumps({'driver': driver})}"] if driver else []
    # A folder of its own: a job connects to the cluster that was started last in its head's, whoever started it.
    own = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # a short path: sockets lie in it
    url = f"http://127.0.0.1:{dashboard}"
    listed = [RAY, "job", "list", "--address", url]

    def takes_jobs() -> bool:
        return not subprocess.run(listed, env=env, capture_output=True, check=False).returncode and _listens(agent)

    process = _started([*command, f"--temp-dir={own.name}"], env, folder / "ray.log", takes_jobs)
    try:
        yield RayHead(f"127.0.0.1:{port}", url, f"127.0.0.1:{metrics}", env, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        own.cleanup()


def _started(
    command: Sequence[str | Path], env: dict[str, str], log: Path, ready: Callable[[], bool]
) -> subprocess.Popen[bytes]:
    """Start a node and wait until it is ``ready``; on a busy machine once more, as Ray gives it half a minute."""
    while True:
        with log.open("w") as sink:
            process = subprocess.Popen(command, env=env, stdout=sink, stderr=sink, start_new_session=True)
        try:
            while process.poll() is None:
                if ready():
                    return process
        except BaseException:
            _end(process)
            raise
        _end(process)  # what it had started
        assert "node timed out during startup" in log.read_text(), log.read_text()


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _listens(port: int) -> bool:
    """Tell whether a node's agent is up, without which no job is taken."""
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@contextmanager
def ray_worker(folder: Path, head: RayHead, *, num_cpus: int) -> Iterator[subprocess.Popen[bytes]]:
    """Join a second node, whose processes are a group of their own; it is ended, or may be killed before."""
    agent, grpc, metrics = free_ports(3)
    command = [RAY, "start", "--block", f"--address={head.address}", f"--num-cpus={num_cpus}", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.2", "--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
    command += [f"--metrics-export-port={metrics}", f"--object-store-memory={300 * 10**6}"]
    nodes = [RAY, "list", "nodes", "--address", head.dashboard]

    def is_there() -> bool:
        listed = subprocess.run(nodes, env=head.environment, capture_output=True, text=True, check=False)
        return "127.0.0.2" in listed.stdout

    process = _started(command, head.environment, folder / "worker.log", is_there)
    try:
        yield process
    finally:
        _end(process)
