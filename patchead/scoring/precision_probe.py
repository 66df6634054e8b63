"""Which arithmetic is fastest on this processor: the kernel of the scores timed in each, in some tens of milliseconds.

Integers and bfloat16 are multiplied several times faster than float32 on a processor with VNNI, AVX512-BF16 or AMX,
and up to sixty times slower on one without. No name of a processor tells which; a few multiplications do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from patchead.scoring.integer_products import numkong_over_torch
from patchead.scoring.precision import dtype_of, maxima_dtype
from patchead.scoring.race import GIVE_UP, race
from patchead.scoring.similarity import cosine_maxima
from patchead.threads import threads_of

CANDIDATES = ("fp32", "int8")
"""What `auto` chooses from on a CPU.

bf16 keeps the scores as int8 does and is about as fast (`jobs/benchmark.py fidelity arithmetic`): a night that goes on
would change its arithmetic for what a probe errs by. fp16 was slower than fp32.
"""
CLEARLY_FASTER = 1.5
"""Times the speed of fp32 from which on another arithmetic is taken: fp32 is exact, and a probe of milliseconds errs by
a tenth."""
_CLEARLY_SLOWER = 0.8
_DIM = 384
_TURNS = 5
_BUDGET = 64 * 10**6
_FLAGS = {
    "AVX-512": ("avx512f",),
    "AVX2": ("avx2",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16",),
    "AMX": ("amx_int8",),
}


def probe(device: str = "cpu", candidates: Iterable[str] = CANDIDATES) -> dict[str, float]:
    """Time `similarity.cosine_maxima` in each arithmetic, with all threads of torch.

    Blocks of 64 patches an image come first, and whoever is far behind there is not timed on those of 256: the whole
    takes about 0.1 s, and by reckoning twice that where integers are sixty times slower than fp32. The answer is kept:
    a process asks its processor once for each number of threads.

    Args:
        device: ``cpu`` or ``cuda``.
        candidates: names of `precision.DTYPES`; fp32 is always timed.

    Returns:
        Speed over that of fp32 by name; that of fp32 is 1.

    Raises:
        SettingsError: an unknown precision.
    """
    names = ("fp32", *(name for name in candidates if name != "fp32"))
    return dict(_probed(device, names, threads_of(torch.device(device))))


def probe_with(threads: int, device: str, candidates: Sequence[str]) -> dict[str, float]:
    """Take a `probe` with as many threads of torch as an actor will have; they are as before afterwards.

    Where it times int8 on a CPU, `numkong over torch` is there too: above 1.1 NumKong multiplies the integers.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = probe(device, candidates)
    finally:
        torch.set_num_threads(before)
    return found | ({"numkong over torch": numkong_over_torch()} if device == "cpu" and "int8" in found else {})


def choose(probes: Sequence[Mapping[str, float]], candidates: Sequence[str] = CANDIDATES) -> str:
    """Choose one arithmetic for all workers: that in which the slowest of them gains most over its fp32.

    It must be clearly faster than fp32 on every worker (`CLEARLY_FASTER`): one worker without fast integers would keep
    all others waiting.

    Args:
        probes: what `probe` gave on each worker.
        candidates: names to choose from; one that a worker did not time is left out.

    Raises:
        ValueError: there are no probes.
    """
    if not probes:
        raise ValueError("choose needs the probe of one worker at least; got none")
    slowest = {name: min(found.get(name, 0.0) for found in probes) for name in candidates}
    best = max(slowest, key=slowest.__getitem__)
    return best if slowest[best] >= CLEARLY_FASTER else "fp32"


def clearly_slower(speed: float) -> bool:
    """Tell whether a `probe`'s speed over fp32 is below 1 by more than it errs on a busy machine."""
    return speed < _CLEARLY_SLOWER


def warning(precision: str, probes: Sequence[Mapping[str, float]], where: str = "") -> str | None:
    """Say by how much an arithmetic that was asked for is slower than fp32; None where it is not clearly slower.

    Args:
        precision: the setting.
        probes: what `probe` gave on each worker; one that did not time ``precision`` says nothing.
        where: names the slowest worker in the text, e.g. "the slowest of 4 workers"; default: this processor.
    """
    speed = min((found.get(precision, inf) for found in probes), default=inf)
    if not clearly_slower(speed):
        return None
    return (
        f"`precision` {precision} runs at {speed:.2g} times the speed of fp32 on "
        f"{where or f'this processor ({processor()})'}; set `precision` to auto or fp32."
    )


def warning_here(precision: str, device: str) -> str | None:
    """Give the `warning` for what this process scores itself, after its own `probe`."""
    candidates = to_time(precision, device)
    return warning(precision, [probe(device, candidates)]) if candidates else None


def to_time(asked: str, device: str) -> tuple[str, ...]:
    """Name what a worker has to `probe` for a ``precision`` that was asked for; empty where nothing depends on it."""
    if asked == "auto":
        return CANDIDATES if device == "cpu" else ()
    return () if asked == "fp32" else ("fp32", asked)


@lru_cache(maxsize=1)
def processor() -> str:
    """Name this machine's processor, with what decides how fast it multiplies: ``AMD EPYC (AVX-512, VNNI, BF16)``."""
    info = Path("/proc/cpuinfo")
    return described(info.read_text(encoding="utf-8") if info.exists() else "")


def described(cpuinfo: str) -> str:
    """Shorten the text of Linux' /proc/cpuinfo to the name of the first processor and what makes it fast."""
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = set(facts.get("flags", "").split())
    known = [name for name, any_of in _FLAGS.items() if flags & set(any_of)]
    known = [name for name in known if name != "AVX2" or "AVX-512" not in known]
    model = facts.get("model name", "an unknown processor")
    return f"{model} ({', '.join(known)})" if known else model


@dataclass(frozen=True)
class _Blocks:
    """Two blocks that are compared: images of ``a`` and of ``b``, of as many patches."""

    a: int
    b: int
    patches: int

    @property
    def work(self) -> int:
        return self.a * self.b * self.patches**2

    def comparison(self, precision: str, device: str) -> Callable[[], None]:
        """One call of the kernel on random values: its speed does not depend on them."""
        a, b = (_random((images, self.patches, _DIM), precision, device) for images in (self.a, self.b))
        dtype = maxima_dtype(a.dtype)
        ab, ba = (
            torch.empty(x, y, self.patches, dtype=dtype, device=device) for x, y in ((self.a, self.b), (self.b, self.a))
        )

        def run() -> None:
            cosine_maxima(a, b, ab, ba, budget_bytes=_BUDGET)
            if a.is_cuda:
                torch.cuda.synchronize(a.device)

        return run


@lru_cache(maxsize=16)
def _probed(device: str, names: tuple[str, ...], threads: int) -> Mapping[str, float]:
    few, many = _Blocks(2 * threads, 2, 64), _Blocks(2 * threads, 4, 256)
    first = race({name: few.comparison(name, device) for name in names}, _TURNS, device)
    fast = [name for name in names if name == "fp32" or first[name] <= GIVE_UP * min(first.values())]
    second = race({name: many.comparison(name, device) for name in fast}, _TURNS, device)
    # Seconds per work, from the difference: what a call costs above its work is in both, and falls out. It is
    # the same in every arithmetic, which tells the rate of those that have one time only.
    rates = {name: max(taken - first[name], taken / 2) / (many.work - few.work) for name, taken in second.items()}
    overhead = max(0.0, first["fp32"] - rates["fp32"] * few.work)
    rates |= {name: max(first[name] - overhead, first[name] / 2) / few.work for name in names if name not in rates}
    return {name: rates["fp32"] / rates[name] for name in names}


def _random(shape: tuple[int, int, int], precision: str, device: str) -> Tensor:
    dtype, own = dtype_of(precision), torch.Generator(device).manual_seed(0)  # the process's own draws stay as they are
    if dtype == torch.int8:
        return torch.randint(-127, 128, shape, dtype=dtype, device=device, generator=own)
    return torch.rand(shape, device=device, generator=own).to(dtype)
