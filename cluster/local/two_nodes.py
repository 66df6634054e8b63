#!/usr/bin/env python3
"""Two real Ray nodes on this one machine, cut off from every network, and one job submitted to them.

    python cluster/local/two_nodes.py -- python jobs/nightly.py --config FILE --archive DIR --lake DIR

The nodes live in their own network, process and mount namespace, with token authentication and their own HOME.
So their ports clash with nothing, nobody outside can reach them, and no process of them survives: when the first
process of a process namespace ends, the kernel ends all the others. Being cut off, the job reads and writes local
folders only (no S3 server of this machine, no model hub); caches are those of the caller. No GPU is used.

Exit code: the job's own; 1 when the cluster or the submission failed; 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

HEAD_IP, WORKER_IP = "127.0.0.1", "127.0.0.2"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
DASHBOARD = f"http://{HEAD_IP}:{DASHBOARD_PORT}"
NODES = 2
START_TIMEOUT_S = 900  # of a busy machine; a quiet one takes some ten seconds
STOP_TIMEOUT_S = 20
OBJECT_STORE_BYTES = 512 * 2**20

# Linux: ioctl numbers and the flag that bring a network interface up (linux/sockios.h, linux/if.h).
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


def main() -> int:
    arguments = parse()
    return inside(arguments) if arguments.inside else outside(arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-cpus", type=int, default=1, help="CPUs of each node (default 1)")
    parser.add_argument("--keep", action="store_true", help="keep Ray's session folder with its logs, and say where")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # the folder of this run
    parser.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)  # a pipe that closes when the caller ends
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="the job")
    return parser.parse_args()


# --- outside: make the namespaces, wait, clean up ---------------------------------------------------------------------


def outside(arguments: argparse.Namespace) -> int:
    """Run :func:`inside` in new namespaces; return its exit code once nothing of it is left."""
    unshare = namespaces()
    signal.signal(signal.SIGTERM, _terminated)
    # Unix socket paths end at 107 bytes and Ray adds some 70 to this folder's name: it must be short.
    directory = Path(tempfile.mkdtemp(prefix="ray2-", dir="/tmp"))
    read_end, write_end = os.pipe()
    again = [sys.executable, __file__, f"--num-cpus={arguments.num_cpus}", f"--inside={directory}"]
    child = subprocess.Popen(
        [*unshare, *again, f"--lifeline={read_end}", "--", *arguments.command],
        pass_fds=[read_end],
        start_new_session=True,
    )
    os.close(read_end)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    finally:
        os.close(write_end)
        _await_end(child)
        if arguments.keep:
            say(f"kept {directory}")
        else:
            shutil.rmtree(directory)
    return code if code >= 0 else 128 - code


def namespaces() -> list[str]:
    """The ``unshare`` command that works here: as root, or as a user where user namespaces are allowed."""
    base = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None:
        sys.exit("two_nodes: the program 'unshare' (package util-linux, Linux only) is missing.")
    reasons = []
    for command in (base, [*base, "--map-root-user"]):
        probe = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if probe.returncode == 0:
            return command
        reasons.append(probe.stderr.strip())
    sys.exit(
        "two_nodes: no private network namespace can be made here, neither as root nor with user namespaces. "
        "Run it as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
        "kernel.apparmor_restrict_unprivileged_userns=0), or start the container with --privileged.\n  "
        + "\n  ".join(reasons)
    )


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


def _await_end(child: subprocess.Popen[bytes]) -> None:
    # The lifeline is closed: the inner process ends, and the kernel has ended its namespace before unshare returns.
    try:
        child.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


# --- inside: the first process of the new namespaces ------------------------------------------------------------------


def inside(arguments: argparse.Namespace) -> int:
    """Start both nodes, submit the job, stream its output; return the job's exit code."""
    threading.Thread(target=_end_with_caller, args=(arguments.lifeline,), daemon=True).start()
    loopback_up()
    environment = node_environment(arguments.inside)
    os.environ.clear()
    os.environ.update(environment)
    node = [f"--num-cpus={arguments.num_cpus}", "--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    node += [f"--temp-dir={arguments.inside / 'ray'}", "--disable-usage-stats"]
    dashboard = ["--include-dashboard=true", f"--dashboard-host={HEAD_IP}", f"--dashboard-port={DASHBOARD_PORT}"]
    start_node(["--head", f"--port={GCS_PORT}", f"--node-ip-address={HEAD_IP}", *dashboard, *node])
    # The second agent needs a port of its own: by default both would take the same.
    second = [
        f"--address={HEAD_IP}:{GCS_PORT}",
        f"--node-ip-address={WORKER_IP}",
        "--dashboard-agent-listen-port=52366",
    ]
    start_node([*second, *node])
    show_nodes()
    code = submit(arguments.inside, arguments.command)
    show_tasks()
    return code


def _end_with_caller(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)


def loopback_up() -> None:
    """What ``ip link set lo up`` does, without needing that program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def node_environment(directory: Path) -> dict[str, str]:
    """The caller's environment without its Ray settings, with a HOME and a token that only these nodes know."""
    home = directory / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {
        "HOME": str(home),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "RAY_worker_niceness": "0",  # Ray's 15 would starve the job beside anything else that runs here
        "RAY_agent_register_timeout_ms": str(1000 * START_TIMEOUT_S),
        "RAY_worker_register_timeout_seconds": str(START_TIMEOUT_S),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def start_node(options: list[str]) -> None:
    ray = Path(sys.executable).parent / "ray"
    started = subprocess.run([str(ray), "start", *options], capture_output=True, text=True, check=False)
    # Ray gives a node 30 s, too few for a busy machine, and leaves what it has started: `show_nodes` waits for that.
    if started.returncode and "timed out during startup" not in started.stderr:
        sys.exit(f"two_nodes: ray start {shlex.join(options)} failed:\n{started.stdout}{started.stderr}")


def show_nodes() -> None:
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            nodes = list_nodes(address=DASHBOARD, filters=[("state", "=", "ALIVE")])
        except (RayStateApiException, OSError):
            nodes = []
        if len(nodes) == NODES:
            break
        if time.monotonic() > deadline:
            sys.exit(f"two_nodes: {len(nodes)} of {NODES} nodes after {START_TIMEOUT_S} s.")
        time.sleep(0.5)
    say(f"{len(nodes)} nodes alive")
    for node in nodes:
        say(f"node {node.node_id} {node.node_ip} CPU={node.resources_total.get('CPU', 0):g}")


def submit(directory: Path, command: list[str]) -> int:
    """``ray job submit`` to the end; the exit code is that of the job's process, not that of the command line tool."""
    from ray.job_submission import JobSubmissionClient

    # `ray job submit` joins its words without the shell's quoting; a file keeps them as they were typed.
    script = directory / "job.sh"
    script.write_text(f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}\n", encoding="utf-8")  # noqa: PTH109
    ray, name = Path(sys.executable).parent / "ray", "two-nodes"
    submit = [str(ray), "job", "submit", f"--address={DASHBOARD}", f"--submission-id={name}", "--", "sh", str(script)]
    subprocess.run(submit, check=False)
    info = JobSubmissionClient(DASHBOARD).get_job_info(name)
    code = info.driver_exit_code
    say(f"job {info.status.value}, exit code {code}")
    if code is None:
        return 1
    return code if code >= 0 else 128 - code


def show_tasks() -> None:
    from ray.util.state import list_tasks
    from ray.util.state.exception import RayStateApiException

    try:
        tasks = list_tasks(address=DASHBOARD, filters=[("state", "=", "FINISHED")], detail=True, limit=10_000)
    except RayStateApiException as exc:  # the job has ended: its exit code stands
        say(f"tasks per node unknown: {exc}")
        return
    for node, count in sorted(Counter(task.node_id for task in tasks if task.node_id).items()):
        say(f"tasks finished on node {node}: {count}")


def say(text: str) -> None:
    print(f"two_nodes: {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
