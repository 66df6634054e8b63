"""Bounded work by Ray tasks: every item once, few in flight at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import ray

from patchead.errors import LostNodesError, PatcheadError
from patchead.runtime.executor import Failed
from patchead.runtime.joined_nodes import LOOK_EVERY
from patchead.runtime.lost_nodes import Stall, with_room
from patchead.runtime.pool import IN_FLIGHT, STARTS, Pool
from patchead.runtime.ray_folder import RayFolder
from patchead.runtime.worker_errors import worker_errors

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_cpus: float = 1.0,
    starts: int = STARTS,
    memory: int = 0,
    wait_minutes: float = 20.0,
    tell: Callable[[str], None] = print,
    failed: Failed | None = None,
) -> Iterator[tuple[int, Result]]:
    """Run a function on every item by Ray tasks; yield each item's number and its result as it is finished.

    Twice as many tasks as the cluster has room for are handed out at a time, and items are drawn as tasks finish.

    Args:
        function: what to run; it and the items must pickle.
        items: any number of them.
        num_cpus: that one task takes.
        memory: bytes that one task may take, no more than half of the largest node's; 0 where it is not known.
        starts: of one task, at most; it is begun again after its process or its machine was lost.
        wait_minutes: for a node with room, or room for Ray's own files, where none is left.
        tell: is given a warning then.
        failed: is given the number and the error of an item that raised instead, and the others go on.

    Raises:
        PatcheadError: that a task raised, as itself.
        WorkerError: there is no room, or for any other error of a task.
    """
    room = partial(with_room, Pool(1, num_cpus, 0.0, 1, 0.0), wait_minutes, tell)
    stall = Stall(RayFolder(wait_minutes, tell))
    remote = ray.remote(num_cpus=num_cpus, max_retries=starts - 1, memory=within_a_node(memory))(_call)
    most = _Most(num_cpus)
    running: dict[ray.ObjectRef, int] = {}
    for index, item in enumerate(items):
        while len(running) >= most.now():
            yield from _first(running, stall, room, failed)
        running[remote.remote(function, item)] = index
    while running:
        yield from _first(running, stall, room, failed)


def within_a_node(memory: int) -> int | None:
    """Bound what a task reserves, so that at least two find room on the largest node: else none would ever begin.

    None where nothing is to be reserved.
    """
    if not memory:
        return None
    largest = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return min(memory, largest // 2) or None


class _Most:
    """Tasks that are handed out at a time, as many nodes as there are now."""

    def __init__(self, num_cpus: float) -> None:
        self._num_cpus, self._looked, self._found = num_cpus, 0.0, 0

    def now(self) -> int:
        """Count them; looks at the nodes once in a while."""
        if not self._found or time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            self._found = IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1) / self._num_cpus))
        return self._found


def _first(
    running: dict[ray.ObjectRef, int], stall: Stall, room: Callable[[], Pool], failed: Failed | None
) -> Iterator[tuple[int, Any]]:
    """The first that is finished, or none where it has failed."""
    done = None
    while done is None:
        try:
            done = stall.first([*running])
        except LostNodesError:
            room()
            stall.begin()
    index = running.pop(done)
    try:
        with worker_errors():
            found = ray.get(done)
    except PatcheadError as exc:
        if failed is None:
            raise
        failed(index, exc)
        return
    yield index, found


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
