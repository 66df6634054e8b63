"""Bounded work over a fixed set of actors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import ray

from patchead.runtime.pool import IN_FLIGHT
from patchead.runtime.worker_errors import worker_errors

Item = TypeVar("Item")
Result = TypeVar("Result")
Ticket = TypeVar("Ticket")

Submit = Callable[[Any], ray.ObjectRef]


def dispatch(
    actors: Sequence[Any], jobs: Iterable[tuple[Ticket, Submit]], *, in_flight: int = IN_FLIGHT
) -> Iterator[tuple[Ticket, ray.ObjectRef]]:
    """Run each job on the next free actor, ``in_flight`` per actor at most; yield tickets as their jobs finish.

    Jobs are drawn lazily, so an endless iterable is never held. A job that raised is yielded like any other: its
    reference raises when it is read.
    """
    free = deque([*actors] * in_flight)
    running: dict[ray.ObjectRef, tuple[Ticket, Any]] = {}
    for ticket, submit in jobs:
        while not free:
            yield from _finish_one(running, free)
        actor = free.popleft()
        running[submit(actor)] = (ticket, actor)
    while running:
        yield from _finish_one(running, free)


def _finish_one(
    running: dict[ray.ObjectRef, tuple[Ticket, Any]], free: deque[Any]
) -> Iterator[tuple[Ticket, ray.ObjectRef]]:
    (done,), _ = ray.wait([*running], num_returns=1, fetch_local=False)
    ticket, actor = running.pop(done)
    free.append(actor)
    yield ticket, done


def run_tasks(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_cpus: float = 1.0
) -> Iterator[tuple[int, Result]]:
    """Run ``function`` on every item by Ray tasks; yield each item's number and its result as it is finished.

    Twice as many tasks as the cluster has room for are handed out at a time, and items are drawn as tasks finish.

    Args:
        function: what to run; it and the items must pickle.
        items: any number of them.
        num_cpus: that one task takes.

    Raises:
        PatcheadError: that a task raised, as itself.
        RayError: for any other error of a task.
    """
    slots = max(1, int(ray.cluster_resources().get("CPU", 1) / num_cpus))
    jobs = ((index, partial(_submit, function, item, num_cpus)) for index, item in enumerate(items))
    with worker_errors():
        for index, reference in dispatch([None] * slots, jobs):
            yield index, ray.get(reference)


def map_tasks(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """``list(map(function, items))`` by Ray tasks, two per CPU of the cluster at a time; ``function`` must pickle."""
    slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
    jobs = ((index, partial(_submit, function, item, 0.5)) for index, item in enumerate(items))
    done = {index: ray.get(reference) for index, reference in dispatch([None] * slots, jobs)}
    return [done[index] for index in sorted(done)]


def _submit(function: Callable[[Any], Any], item: Any, num_cpus: float, _: None) -> ray.ObjectRef:
    return _call.options(num_cpus=num_cpus).remote(function, item)


@ray.remote
def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
