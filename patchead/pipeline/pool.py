"""How much of the cluster a stage takes. Light: every scoring actor imports it, and none needs Ray Data."""

from __future__ import annotations

from dataclasses import dataclass

IN_FLIGHT = 2
"""Calls per actor that are handed out at a time: one at work, one whose blocks are on their way."""


@dataclass(frozen=True)
class Pool:
    """A fixed-size pool of equal actors and the decode tasks that feed it."""

    size: int
    num_cpus: float
    num_gpus: float
    threads: int
    decode_cpus: float

    @property
    def device(self) -> str:
        return "cuda" if self.num_gpus else "cpu"
