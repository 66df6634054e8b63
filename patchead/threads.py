"""One core per item instead of all cores per operation: what a CPU is fastest with, for tiles and for encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def threads_of(device: torch.device) -> int:
    """How many items `over_threads` works on at a time: torch's thread count on a CPU, 1 elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def over_threads(work: Callable[[Item], None], items: Sequence[Item], device: torch.device) -> None:
    """Call ``work`` on every item, in any order; on a CPU, `threads_of` items at a time with one core each.

    Threads of one operation meet at its end, and the operations of a tile take a tenth of a millisecond: with a core
    of its own, each item waits for nobody. ``work`` must write to places that no other item touches.
    """
    threads = threads_of(device)
    if threads == 1 or len(items) < 2:
        for item in items:
            work(item)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for _ in pool.map(work, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the setting of the matrix library is the whole process's
