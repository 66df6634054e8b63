"""What the scoring stage really did: calls begun, seconds of each actor, reads of the lake. Pure counting."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any


class CallCounts:
    """Count calls begun, seconds of each actor, and reads of the lake; asked once, for the run record."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._begun_at, self._ended_at = dict[str, float](), dict[str, float]()
        self._reads: Counter[tuple[str, str]] = Counter()
        self._bytes = 0

    def began(self, task: str) -> None:
        """Count one start of ``task``; the second start of one is a repetition after a loss."""
        self._begun[task] += 1

    def finished(self, actor: str, seconds: float) -> None:
        """Count the ``seconds`` that ``actor`` has worked on one task, which has ended now."""
        self._seconds[actor] += seconds
        self._ended_at[actor] = now = time.monotonic()
        self._begun_at.setdefault(actor, now - seconds)

    def read(self, node: str, block: str, size: int) -> None:
        """Count one read of the ``size`` bytes of ``block`` from the lake by ``node``."""
        self._reads[node, block] += 1
        self._bytes += size

    def tasks(self) -> list[str]:
        """Return the names of the tasks that were begun, in the order of their first start."""
        return list(self._begun)

    def summary(self) -> dict[str, Any]:
        """Return the counts as plain JSON values.

        ``tasks_redone`` are starts beyond the first; ``reads_of_a_block_per_node`` the largest number of times that
        one node read one block; ``actor_seconds`` the time in tasks of each actor, without waiting for their blocks;
        ``slowest_over_mean`` of those; ``actor_idle`` the share of its time, from its first task to the end of its
        last, that each actor was in none.
        """
        seconds = [self._seconds[actor] for actor in sorted(self._seconds)]
        mean = sum(seconds) / len(seconds) if seconds else 0.0
        return {
            "tasks_done": len(self._begun),
            "tasks_redone": self._begun.total() - len(self._begun),
            "blocks_read": self._reads.total(),
            "bytes_read": self._bytes,
            "reads_of_a_block_per_node": max(self._reads.values(), default=0),
            "actor_seconds": [round(value, 3) for value in seconds],
            "slowest_over_mean": round(max(seconds) / mean, 3) if mean else None,
            "actor_idle": [self._idle(actor) for actor in sorted(self._seconds)],
        }

    def _idle(self, actor: str) -> float:
        there = self._ended_at[actor] - self._begun_at[actor]
        return round(max(0.0, 1 - self._seconds[actor] / there), 3) if there else 0.0
