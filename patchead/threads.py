"""One core per item instead of all cores per operation: what a CPU is fastest with, for tiles and for encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

CoreMap = Callable[[Callable[[Any], None], Iterable[Any]], Iterator[None]]
"""As the built-in ``map``."""


def threads_of(device: torch.device) -> int:
    """Count the items that `over_threads` works on at a time: torch's threads on a CPU, 1 elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


@contextmanager
def core_map(device: torch.device, items: int) -> Iterator[CoreMap]:
    """Give a ``map`` that works on `threads_of` of its ``items`` at a time with one core each; use up its results.

    Threads of one operation meet at its end, and the operations of a tile take a tenth of a millisecond: with a core
    of its own, each item waits for nobody. The function must write to places that no other item touches.
    """
    threads = threads_of(device)
    if threads == 1 or items < 2:
        yield map
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the setting of the matrix library is the whole process's


def over_threads(work: Callable[[Item], None], items: Sequence[Item], device: torch.device) -> None:
    """Call ``work`` on every item by `core_map`."""
    with core_map(device, len(items)) as run:
        for _ in run(work, items):
            pass


def on_one_core(work: Callable[[], Result], device: torch.device) -> Result:
    """Call ``work`` with one thread: many small operations lose more by waiting for cores than they win by them."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return work()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(threads)
