"""Nodes that are lost: Ray starts again what ran there, where there is room; elsewhere nobody waits for ever."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import ray
from ray.exceptions import RayError, RayTaskError

from patchead.errors import LostNodesError, StoppedError, WorkerError
from patchead.runtime.data_callbacks import ExecutionCallback
from patchead.runtime.pool import Pool
from patchead.runtime.ray_folder import RayFolder

PATIENCE = 30.0
"""Seconds without a result, at least, before a lost node is held to be the cause; or twice the longest wait so far."""
_LOOK_EVERY = 1.0
_NOTICED_WITHIN = 60.0
_ANSWERS_WITHIN = 5.0
_REMEDY = "Run again under the same run id: what was finished is kept."


class Stall:
    """Tell why nothing comes: a node that was there at the beginning is gone, or Ray has no room for its own files."""

    def __init__(self, folder: RayFolder | None = None) -> None:
        self._folder = folder
        self._longest, self._begun, self.given_up = PATIENCE / 2, False, False
        self.begin()

    def begin(self) -> None:
        """Take the nodes of now for all there are: Ray has begun again what ran on others."""
        self._nodes = _alive()
        self._moved = self._looked = time.monotonic()

    def know_nodes(self) -> None:
        """Take nodes that have joined for nodes that may be lost."""
        self._nodes |= _alive()

    def moved(self) -> None:
        """Note that a result has come."""
        now = time.monotonic()
        if self._begun:  # the first one waits for processes to start
            self._longest = max(self._longest, now - self._moved)
        self._moved, self._begun = now, True

    def check(self) -> None:
        """Look at the nodes and at Ray's folder, if nothing has come for long.

        Raises:
            LostNodesError: a node is gone.
            WorkerError: Ray has had no room for its files for too long.
        """
        now = time.monotonic()
        if now - self._moved > 2 * self._longest and now - self._looked > _LOOK_EVERY:
            self._looked = now
            if lost := self._lost():
                raise LostNodesError(f"nothing has come for {now - self._moved:.0f} seconds, and {lost} nodes are gone")
            if self._folder is not None:
                self._folder.check()

    def first(self, references: Sequence[Any]) -> Any:
        """Wait for the first of some results.

        Raises:
            LostNodesError, WorkerError: as `check`.
            StoppedError: it was ``given_up`` from another thread.
        """
        while (done := self.next(references)) is None:
            pass
        return done

    def next(self, references: Sequence[Any]) -> Any | None:
        """Wait for the first of some results, for a second; None where none has come. Raises as `first`."""
        if self.given_up:
            raise StoppedError("given up")
        done, _ = ray.wait([*references], num_returns=1, timeout=_LOOK_EVERY, fetch_local=False)
        if done:
            self.moved()
            return done[0]
        self.check()
        return None

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn an error of Ray's own into a `LostNodesError`, where a node is gone: it took what was needed along."""
        try:
            yield
        except RayError as exc:
            if isinstance(exc, RayTaskError):
                raise
            # The calls to a node that is gone fail before the cluster knows that it is.
            deadline = time.monotonic() + (0 if all(map(_answers, ray.nodes())) else _NOTICED_WITHIN)
            while not (lost := self._lost()):
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LOOK_EVERY)
            raise LostNodesError(f"{lost} nodes are gone ({type(exc).__name__})") from exc

    def _lost(self) -> int:
        return len(self._nodes - _alive())


class StopWhenStalled(ExecutionCallback):
    """End an execution of Ray Data that waits for lost nodes: it calls this at each step, in the driver."""

    stall: ClassVar[Stall | None] = None
    """Of the execution that is going on."""

    def on_execution_step(self, executor: Any) -> None:
        """Raise `LostNodesError` if it waits for lost nodes."""
        if self.stall is not None:
            self.stall.check()


def room(pool: Pool) -> int:
    """Count the actors of a pool, each with what feeds it, that the live nodes have room for."""
    cpus = pool.num_cpus + pool.decode_cpus
    return sum(
        min(int(node.get("CPU", 0) // cpus), int(node.get("GPU", 0) // pool.num_gpus) if pool.num_gpus else 10**9)
        for node in (each["Resources"] for each in ray.nodes() if each["Alive"])
    )


def with_room(pool: Pool, wait_minutes: float, tell: Callable[[str], None]) -> Pool:
    """Make a pool as small as the live nodes ask for; where there is no room at all, wait for some.

    Raises:
        WorkerError: there is none after ``wait_minutes``.
    """
    deadline, waited = time.monotonic() + 60 * wait_minutes, False
    while (found := room(pool)) < 1:
        if not waited:
            tell(f"warning: no node has room for an actor any more; waiting up to {wait_minutes:g} minutes for one")
        waited = True
        if time.monotonic() >= deadline:
            raise WorkerError(
                f"no node has room for an actor any more ({pool.num_cpus + pool.decode_cpus:g} CPUs and "
                f"{pool.num_gpus:g} GPUs), and none came in the {wait_minutes:g} minutes of resources.wait_minutes. "
                f"{_REMEDY}"
            )
        time.sleep(_LOOK_EVERY)
    if found < pool.size:
        tell(f"warning: nodes were lost: going on with {found} of {pool.size} actors")
    return replace(pool, size=min(found, pool.size))


def _answers(node: dict[str, Any]) -> bool:
    """Whether a node can be connected to, if the cluster holds it to be alive."""
    if not node["Alive"]:
        return True  # that is known
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=_ANSWERS_WITHIN):
            return True
    except OSError:
        return False


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
