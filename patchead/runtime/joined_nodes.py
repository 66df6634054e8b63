"""Nodes that join amid a stage: its pool grows into the room that they bring, and its new actors get calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from patchead.runtime.data_callbacks import ExecutionCallback, actor_pools
from patchead.runtime.lost_nodes import Stall, room
from patchead.runtime.pool import Pool

LOOK_EVERY = 5.0
"""Seconds between two looks at the nodes."""


@dataclass
class Growth:
    """Say by how many actors a pool may grow."""

    pool: Pool
    """As the stage wants it; no more than its size, unless it ``grows``."""
    stall: Stall
    """Of the work: it must know the nodes that join, as they may be lost too."""
    tell: Callable[[str], None]
    _looked: float = field(default_factory=time.monotonic)

    def more(self, there: int) -> int:
        """Count the actors that there is room for beside those that are ``there``; 0 between two looks."""
        if time.monotonic() - self._looked < LOOK_EVERY:
            return 0
        self._looked = time.monotonic()
        found = room(self.pool)
        more = (found if self.pool.grows else min(found, self.pool.size)) - there
        if more <= 0:
            return 0
        self.stall.know_nodes()
        self.tell(f"nodes have joined: going on with {there + more} actors in place of {there}")
        return more


class GrowWhenJoined(ExecutionCallback):
    """Let the pool of actors of an execution of Ray Data grow: it calls this at each step, in the driver.

    A pool of a fixed size has a least and a largest one that are equal; Ray Data starts what the least one lacks.
    """

    growth: ClassVar[Growth | None] = None
    """Of the execution that is going on."""

    def on_execution_step(self, executor: Any) -> None:
        """Raise the size of the pool where there is room."""
        if self.growth is None:
            return
        for pool in actor_pools(executor):
            size = pool.max_size()
            if more := self.growth.more(size):
                sizes = dict.fromkeys(("min_size", "max_size", "initial_size"), size + more)
                pool._config = replace(pool._config, **sizes)
