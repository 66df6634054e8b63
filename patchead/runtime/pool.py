"""How much of the cluster a stage takes. Light: every scoring actor imports it, and none needs Ray Data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

IN_FLIGHT = 2
"""Calls per actor that are handed out at a time: one at work, one whose blocks are on their way."""
CPUS_PER_ACTOR = 4
"""Of a machine without a GPU, where ``resources.cpus_per_actor`` says nothing and there are so many."""
STARTS = 5
"""Times that a task is begun, at most: again after its process, or its machine, was lost."""


@dataclass(frozen=True)
class Pool:
    """Describe a pool of equal actors and the decode tasks that feed it; of one size, unless nodes come or go."""

    size: int
    num_cpus: float
    num_gpus: float
    threads: int
    decode_cpus: float
    grows: bool = False
    """Whether it may be larger where nodes join amid a stage."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Name the torch device of the actors."""
        return "cuda" if self.num_gpus else "cpu"


@dataclass(frozen=True)
class PoolRequest:
    """Hold what a run asks of the cluster, as ``resources`` and ``encoder.device`` in the settings; None: what fits."""

    device: str = "auto"
    expect_gpus: int | None = None
    wait_minutes: float = 20.0
    gpus_per_actor: float | None = None
    cpus_per_actor: int | None = None
    embed_actors: int | None = None
    score_actors: int | None = None


def reserved_seconds(held: Iterable[tuple[Pool, float]]) -> tuple[float, float]:
    """Count the CPU and GPU seconds that pools held: actors x what each reserves x the seconds, of each pool."""
    pools = list(held)
    cpu = sum(pool.size * (pool.num_cpus + pool.decode_cpus) * seconds for pool, seconds in pools)
    return round(cpu, 1), round(sum(pool.size * pool.num_gpus * seconds for pool, seconds in pools), 1)
