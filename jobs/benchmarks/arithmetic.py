"""What does this processor make of each arithmetic? Bare matrix multiplications on one core, and the probe's answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.records import Record
from patchead.scoring.integer_products import Multiply, by_numkong
from patchead.scoring.precision import DTYPES, matmul_dtype
from patchead.scoring.precision_probe import probe
from patchead.scoring.race import race

_SIDE, _DIM = 1024, 768
_TURNS = 5


def arithmetic() -> list[Record]:
    """Rates of one core in `torch.mm` and, of integers, of torch and NumKong; what `precision: auto` makes of both."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = {name: _multiplication(name, torch._int_mm if name == "int8" else torch.mm) for name in DTYPES}
    seconds = race(runs | {"int8, NumKong": _multiplication("int8", by_numkong)}, _TURNS)
    torch.set_num_threads(threads)
    case, work = f"{_SIDE} x {_SIDE} x {_DIM}, 1 thread", 2 * _SIDE**2 * _DIM / 1e9
    bare = partial(Record, benchmark="arithmetic", case=case, metric="matrix multiplication", unit="GOP/s")
    case = f"P=256 D=384, {threads} threads"
    probed = partial(Record, benchmark="arithmetic", case=case, metric="probe: speed of scoring over fp32", unit="x")
    found = [bare(precision=name, value=work / taken) for name, taken in seconds.items()]
    return found + [probed(precision=name, value=speed) for name, speed in probe(candidates=DTYPES).items()]


def _multiplication(precision: str, multiply: Multiply) -> Callable[[], object]:
    dtype, own = DTYPES[precision], torch.Generator().manual_seed(0)
    a, b = (torch.randint(-127, 128, (_SIDE, _DIM), generator=own).to(dtype) for _ in range(2))
    out = torch.empty(_SIDE, _SIDE, dtype=matmul_dtype(dtype))
    return partial(multiply, a, b.t(), out=out)
