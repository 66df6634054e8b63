"""Work in portions: slices of a range, batches of a sequence or a stream, a map by threads that never runs ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Whole = TypeVar("Whole", bound="Sliceable")


class Sliceable(Protocol):
    """Describe a sequence or an array: it has a length, and a slice of it is one of its own."""

    def __len__(self) -> int: ...
    def __getitem__(self: Whole, cut: slice, /) -> Whole: ...


def slices(n: int, size: int, start: int = 0) -> list[slice]:
    """Cut ``start`` to ``n`` into slices of ``size``; the last may be shorter."""
    return [slice(first, min(first + size, n)) for first in range(start, n, size)]


def batches(items: Whole, size: int) -> Iterator[Whole]:
    """Cut a sequence or an array, along its first axis, into parts of ``size``; the last may be shorter."""
    return (items[cut] for cut in slices(len(items), size))


def stream_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Gather a stream into lists of ``size``, the last perhaps shorter; nothing is taken before it is asked for."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def concurrently(function: Callable[[Item], Result], items: Iterable[Item], at_once: int = 32) -> Iterator[Result]:
    """Call ``function`` on each item by ``at_once`` threads and yield the results in the items' order.

    At most ``2 * at_once`` items are taken from ``items`` before the result of the first of them has been yielded, so
    an endless stream needs no more memory than a short one. An error of ``function`` is raised in its place; items
    that no thread has begun with are then dropped.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(at_once)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == 2 * at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
