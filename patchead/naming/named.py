"""What naming a region comes to, whether by examples or by words: a type or `UNKNOWN`, and how sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UNKNOWN = "unknown"
"""The type of a region that is near enough to none."""
Source = Literal["example", "words"]


@dataclass(frozen=True)
class Named:
    """Hold the outcome for one region."""

    defect_type: str
    """One of the types, or `UNKNOWN`."""
    confidence: float
    """From 0 to 1: of the best type among all, also where that was not sure enough to be offered."""
    p: float
    """By example, how often a region of a named type is as far from the examples: at or below the level none is
    offered. By words, how often the same place of a good image scores as high: above the level none is."""
    runner_up: str | None
    """The second-best type, of an unknown region the best; None where there is no other."""
    source: Source
    """What it was named by."""

    @property
    def is_known(self) -> bool:
        """Tell whether a type is offered."""
        return self.defect_type != UNKNOWN
