"""What does this processor make of each arithmetic? Bare matrix multiplications, the probe's answer, and its worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

import numpy as np
import torch
from torch import Tensor

from benchmarks.records import Record, interleaved, measurable, not_measured, ratio
from benchmarks.scoring import MEMORY
from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.integer_products import Multiply, by_numkong
from patchead.scoring.precision import DTYPES, matmul_dtype
from patchead.scoring.precision_probe import CANDIDATES, probe, probe_with
from patchead.scoring.race import race
from patchead.search.score import score_group
from patchead.settings.resolve import settled_precision

_SIDE, _DIM = 1024, 768
_TURNS = 5
_BEST = f"speed of auto over the best of {', '.join(CANDIDATES)}"
_BEST_OF_ALL = "speed of auto over the best of all precisions"
_NEAR = 0.4  # of the fastest one's speed in the probe


def arithmetic() -> list[Record]:
    """Rates of one core in `torch.mm` and, of integers, of each library; what `precision: auto` makes of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = {name: _multiplication(name, torch._int_mm if name == "int8" else torch.mm) for name in DTYPES}
    runs |= {"int8, NumKong": _multiplication("int8", by_numkong), "int8, packed by oneDNN": packed(*_operands("int8"))}
    seconds = race(runs, _TURNS)
    torch.set_num_threads(threads)
    case, work = f"{_SIDE} x {_SIDE} x {_DIM}, 1 thread", 2 * _SIDE**2 * _DIM / 1e9
    bare = partial(Record, benchmark="arithmetic", case=case, metric="matrix multiplication", unit="GOP/s")
    case = f"P=256 D=384, {threads} threads"
    probed = partial(Record, benchmark="arithmetic", case=case, metric="probe: speed of scoring over fp32", unit="x")
    found = [bare(precision=name, value=work / taken) for name, taken in seconds.items()]
    return found + [probed(precision=name, value=speed) for name, speed in probe(candidates=DTYPES).items()]


def automatic(shapes: tuple[tuple[int, int, int], ...], *, repeats: int) -> list[Record]:
    """What `precision: auto` is worth: the whole scoring in what it settles on, over the same in each precision.

    Against the best of all precisions, and of those that `auto` chooses from; why not from all:
    `precision_probe.CANDIDATES`.
    It is settled within its own call, as a worker does it: the warm-up has the probe in it, and later calls what the
    process remembers.

    Args:
        shapes: (N, P, D) of the groups.
        repeats: turns of those that may be the best, after the warm-up; of the others, one.
    """
    records = []
    for n, p, d in shapes:
        stored, settled = unit_vectors(n, p, d), dict[str, str]()
        known = probe(candidates=DTYPES)
        speeds = dict[str, float]()
        for near in (True, False):  # of the fastest: nearly equal ones take many turns to be told apart
            names = [name for name in measurable(DTYPES) if (known[name] > _NEAR * max(known.values())) == near]
            cases = {name: partial(_scored, stored, name, settled) for name in ("auto", *names)}
            seconds = interleaved(dict[str, Callable[[], object]](cases), repeats if near else 1)
            speeds |= {name: ratio(seconds[name], seconds["auto"]) for name in names}
        case = f"N={n} P={p} D={d}, auto is {settled['auto']}"
        figure = partial(Record, benchmark="auto", case=case, unit="x", target=">= 0.9")
        for metric, among in ((_BEST_OF_ALL, tuple(DTYPES)), (_BEST, CANDIDATES)):
            best = min(among, key=lambda name: speeds.get(name, inf))
            records.append(figure(precision=best, metric=metric, value=speeds[best]))
        figure = partial(figure, target=None)
        records += [figure(precision=name, metric="speed of auto over this", value=speeds[name]) for name in speeds]
        records += not_measured("auto", case, DTYPES, "speed of auto over this")
    return records


def _scored(stored: np.ndarray, precision: str, settled: dict[str, str]) -> None:
    probes = [probe_with(torch.get_num_threads(), "cpu", CANDIDATES)] if precision == "auto" else []
    settled[precision] = settled_precision(precision, "cpu", probes)
    score_group(
        stored,
        np.arange(len(stored)),
        aggregation=Aggregation(),
        precision=settled[precision],
        memory_bytes=MEMORY,
    )


def _multiplication(precision: str, multiply: Multiply) -> Callable[[], object]:
    a, b = _operands(precision)
    return partial(multiply, a, b.t(), out=torch.empty(_SIDE, _SIDE, dtype=matmul_dtype(a.dtype)))


def _operands(precision: str) -> tuple[Tensor, Tensor]:
    own = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-127, 128, (_SIDE, _DIM), generator=own).to(DTYPES[precision]) for _ in range(2))
    return a, b


def packed(a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    """Multiply int8 ``a`` (m, D) by ``b`` (n, D), which oneDNN has packed before, to float32 (m, n): the same integers.

    ``a`` is shifted to unsigned numbers, before as well: of signed ones it has a plain loop alone.
    """
    scales, zeros = torch.ones(len(b)), torch.zeros(len(b), dtype=torch.int64)
    ready = torch.ops.onednn.qlinear_prepack(b, list(a.shape))
    shifted = (a.int() + 128).to(torch.uint8)
    multiply = torch.ops.onednn.qlinear_pointwise
    return partial(multiply, shifted, 1.0, 128, ready, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
