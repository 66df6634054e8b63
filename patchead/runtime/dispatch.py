"""Bounded work by Ray tasks: every item once, few in flight at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from patchead.runtime.pool import IN_FLIGHT, STARTS
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
) -> Iterator[tuple[int, Result]]:
    """Run a function on every item by Ray tasks; yield each item's number and its result as it is finished.

    Twice as many tasks as the cluster has room for are handed out at a time, and items are drawn as tasks finish.

    Args:
        function: what to run; it and the items must pickle.
        items: any number of them.
        num_cpus: that one task takes.
        memory: bytes that one task may take, no more than half of the largest node's; 0 where it is not known.
        starts: of one task, at most; it is begun again after its process or its machine was lost.

    Raises:
        PatcheadError: that a task raised, as itself.
        RayError: for any other error of a task.
    """
    remote = ray.remote(num_cpus=num_cpus, max_retries=starts - 1, memory=within_a_node(memory))(_call)
    most = IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1) / num_cpus))
    running: dict[ray.ObjectRef, int] = {}
    for index, item in enumerate(items):
        while len(running) >= most:
            yield _first(running)
        running[remote.remote(function, item)] = index
    while running:
        yield _first(running)


def within_a_node(memory: int) -> int | None:
    """Bound what a task reserves, so that at least two find room on the largest node: else none would ever begin.

    None where nothing is to be reserved.
    """
    if not memory:
        return None
    largest = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return min(memory, largest // 2) or None


def _first(running: dict[ray.ObjectRef, int]) -> tuple[int, Any]:
    (done,), _ = ray.wait([*running], num_returns=1, fetch_local=False)
    index = running.pop(done)
    with worker_errors():
        return index, ray.get(done)


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
