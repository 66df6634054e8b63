"""Bounded work over a fixed set of actors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import ray

from patchead.runtime.pool import IN_FLIGHT

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


def map_tasks(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """``list(map(function, items))`` by Ray tasks, two per CPU of the cluster at a time; ``function`` must pickle."""
    slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
    jobs = ((index, partial(_submit, function, item)) for index, item in enumerate(items))
    done = {index: ray.get(reference) for index, reference in dispatch([None] * slots, jobs)}
    return [done[index] for index in sorted(done)]


def _submit(function: Callable[[Any], Any], item: Any, _: None) -> ray.ObjectRef:
    return _call.remote(function, item)


@ray.remote(num_cpus=0.5)
def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
