"""Which of several calls takes the fewest seconds of a core: a few turns each, and no more of who is far behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf

GIVE_UP = 4.0
"""Times the fastest: whoever takes longer is called no more."""
_PATIENCE = 4  # calls before that: each thread that takes part for the first time prepares for milliseconds


def race(runs: Mapping[str, Callable[[], object]], turns: int, device: str = "cpu") -> dict[str, float]:
    """Take the seconds of the fastest of ``turns`` calls of each, in turns.

    On a CPU they are the seconds in which a core worked for this process: on a busy machine the others' would decide.
    Whoever is more than 4 times slower than the fastest after four calls is not called again.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    best = dict.fromkeys(runs, inf)
    for turn in range(turns):
        for name, run in runs.items():
            if turn >= _PATIENCE and best[name] > GIVE_UP * min(best.values()):
                continue
            best[name] = min(best[name], _seconds(run, clock))
    return best


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of a call; of as many as it takes until a coarse clock goes on."""
    began, calls, now = clock(), 0, 0.0
    while calls == 0 or now == began:
        run()
        calls, now = calls + 1, clock()
    return (now - began) / calls
