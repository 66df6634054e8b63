"""A second node beside that of the session's Ray, on loopback, which a test kills."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private.node import Node
from ray._private.parameter import RayParams


def lose(node: Any) -> None:
    """Kill the raylet of a node and all processes that it has started, as a machine that loses its power does."""
    lost = [node.all_processes["raylet"][0].process.pid]
    for pid in lost:  # grows meanwhile
        with suppress(OSError):
            lost += [
                int(name) for path in Path(f"/proc/{pid}/task").glob("*/children") for name in path.read_text().split()
            ]
    for pid in lost:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def second_node(cpus: int) -> Iterator[Any]:
    """Join a node; yield what kills it, and returns when the cluster knows."""
    before = sum(node["Alive"] for node in ray.nodes())
    params = RayParams(
        gcs_address=ray.get_runtime_context().gcs_address,
        node_ip_address="127.0.0.3",
        num_cpus=cpus,
        num_gpus=0,
        object_store_memory=100 * 10**6,
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        include_log_monitor=False,
    )
    node = Node(params, head=False, shutdown_at_exit=True, spawn_reaper=False)

    def kill() -> None:
        if node.all_processes:
            lose(node)
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        while sum(each["Alive"] for each in ray.nodes()) > before:
            time.sleep(0.1)

    try:
        while sum(each["Alive"] for each in ray.nodes()) == before:
            time.sleep(0.05)
        yield kill
    finally:
        kill()
