"""Dot products of int8 vectors by the library that is fastest for them on this processor: torch's oneDNN or NumKong.

Both give the same integers. Torch needs VNNI or AMX, and is some sixty times slower than fp32 on an AMD EPYC that has
AVX2 alone, where NumKong is a little faster than fp32; with VNNI torch is the faster one. No name of a processor tells
which: a few multiplications do, once for each process.

Packing one operand beforehand by oneDNN (`torch.ops.onednn.qlinear_prepack`) was tried and is not taken: with the other
one shifted to unsigned numbers it gives the same integers at 0.86 to 0.94 times the speed of torch, and for signed ones
it has a plain loop (AMD EPYC with VNNI, `jobs/benchmark.py arithmetic`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from patchead.scoring.race import GIVE_UP, race

Multiply = Callable[..., object]
"""Called as `torch.mm`: (m, D) by (D, n), written to ``out=`` (m, n)."""

_CLEARLY_FASTER = 1.1
_DIM, _TURNS = 384, 5
_FEW, _MANY = (64, 64), (512, 256)  # vectors of the two blocks: torch takes 3 ms for the few where it is slow


def multiplier(vectors: Tensor) -> Multiply:
    """Choose what multiplies blocks of such ``vectors``: the fastest for int8 on a CPU, else torch."""
    if vectors.dtype != torch.int8:
        return torch.mm
    return by_numkong if vectors.device.type == "cpu" and numkong_over_torch() > _CLEARLY_FASTER else torch._int_mm


def by_numkong(x: Tensor, y: Tensor, *, out: Tensor) -> None:
    """Multiply int8 (m, D) by (D, n) to int32 on a CPU by NumKong, in this thread, without Python's lock."""
    numkong = _numkong()
    packed = numkong.dots_pack(numkong.from_dlpack(y.t()))
    numkong.dots_packed(numkong.from_dlpack(x), packed, out=numkong.from_dlpack(out))


@lru_cache(maxsize=1)
def numkong_over_torch() -> float:
    """Time both on this processor, in some ten milliseconds: NumKong's speed over torch's, by a core's seconds."""
    few = race(_runs(*_FEW), _TURNS)
    if max(few.values()) > GIVE_UP * min(few.values()):
        return few["torch"] / few["numkong"]
    many = race(_runs(*_MANY), _TURNS)
    return many["torch"] / many["numkong"]


def _runs(m: int, n: int) -> dict[str, Callable[[], object]]:
    own = torch.Generator().manual_seed(0)  # the process's own draws stay as they are
    x, y = (torch.randint(-127, 128, (rows, _DIM), dtype=torch.int8, generator=own) for rows in (m, n))
    out = torch.empty(m, n, dtype=torch.int32)
    ways: dict[str, Multiply] = {"numkong": by_numkong, "torch": torch._int_mm}
    return {name: partial(multiply, x, y.t(), out=out) for name, multiply in ways.items()}


@lru_cache(maxsize=1)
def _numkong() -> Any:
    import numkong  # where integers are multiplied alone

    return numkong
