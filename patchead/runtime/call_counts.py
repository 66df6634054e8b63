"""What the scoring stage really did, counted by one small actor that outlives the workers it counts."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class CallCounts:
    """Calls begun, seconds of each actor, and reads of the lake; asked once, for the run record."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._seconds: defaultdict[int, float] = defaultdict(float)
        self._reads: Counter[tuple[str, str]] = Counter()
        self._bytes = 0

    def began(self, task: str) -> None:
        """An actor has started on ``task``; the second start of one is a repetition after a loss."""
        self._begun[task] += 1

    def finished(self, actor: int, seconds: float) -> None:
        """Actor number ``actor`` has worked for ``seconds`` on one task."""
        self._seconds[actor] += seconds

    def read(self, node: str, block: str, size: int) -> None:
        """``node`` has read the ``size`` bytes of ``block`` from the lake."""
        self._reads[node, block] += 1
        self._bytes += size

    def summary(self) -> dict[str, Any]:
        """The counts, as plain JSON values.

        ``tasks_redone`` are starts beyond the first; ``reads_of_a_block_per_node`` the largest number of times that
        one node read one block; ``actor_seconds`` the time in tasks of each actor, without waiting for their blocks;
        ``slowest_over_mean`` of those.
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
        }


def open_call_counts() -> tuple[str, Any]:
    """The name and the handle of a new counts, on this node: it must not be lost with a worker node."""
    name = f"patchead-counts-{uuid.uuid4().hex}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(CallCounts)
    return name, remote.options(name=name).remote()
