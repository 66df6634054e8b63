"""Ray, connected to or started on this machine: tried again where the machine was too busy, else one line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from patchead.errors import PatcheadError
from patchead.runtime.worker_errors import one_line

_TRIES = 3
_LATE = "timed out"  # of what Ray raises where its own processes took longer than the half minute that it gives them
_OF_RAY = (OSError, RuntimeError, TimeoutError, ValueError, RayError)


def connect(runtime_env: Mapping[str, Any]) -> None:
    """Connect to the cluster of ``RAY_ADDRESS``.

    Raises:
        PatcheadError: it cannot be reached.
    """
    _tried(
        f"cannot connect to the Ray cluster of RAY_ADDRESS={os.environ['RAY_ADDRESS']}",
        {"log_to_driver": False, "runtime_env": dict(runtime_env)},
        tries=1,
    )


def start(local_cpus: int | None, runtime_env: Mapping[str, Any]) -> None:
    """Start Ray on this machine, up to three times where its processes are late.

    Raises:
        PatcheadError: it does not start.
    """
    options = {
        "address": "local",
        "num_cpus": local_cpus,
        "include_dashboard": False,
        "log_to_driver": False,
        "runtime_env": dict(runtime_env),
        "_node_ip_address": "127.0.0.1",
    }
    _tried("Ray cannot be started on this machine; --local works without it", options, tries=_TRIES)


def _tried(otherwise: str, options: Mapping[str, Any], *, tries: int) -> None:
    for left in reversed(range(tries)):
        try:
            ray.init(**options)
        except Exception as exc:
            if not isinstance(exc, _OF_RAY) and type(exc) is not Exception:  # a bare one is of a node that is late
                raise
            ray.shutdown()  # what had started
            if not left or _LATE not in str(exc).lower():
                raise PatcheadError(f"{otherwise}: {type(exc).__name__}: {one_line(str(exc))}") from exc
        else:
            return


@contextmanager
def loopback_only() -> Iterator[None]:
    """Have a Ray that is started inside the block listen on loopback alone, its metrics too.

    Every listener of Ray is bound to loopback where the node's address is 127.0.0.1, as on Windows and macOS. On Linux
    Ray replaces that address by the host's own, unless it is told that there will be no cluster.
    """
    before, named = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR)
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if named is None:
            del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
        else:
            os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = named
