"""What a GPU makes of it: a bare machine with torch, timm and triton is enough, without Ray and without images.

Vectors are drawn on the GPU: parts that lie alike (each place has its own vector, and each image strays from it in
sixteen directions), with one mark in every tenth image.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch

from benchmarks.gpu_embedding import embedding
from benchmarks.records import Record, ratio
from patchead.errors import SettingsError
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.fused_maxima import fused_maxima
from patchead.scoring.precision import dtype_of, prepare
from patchead.scoring.similarity import cosine_maxima
from patchead.search.score import score_group

_DEVICE = "cuda"
_FAST = ("fp16", "bf16", "int8")
_MEMORY = 40 * 10**9
_BOUNDED = 200  # images of a group that bounds are tried on: they take 8.5 times as long as the full search
_BUDGET = 2 * 10**9  # of the similarity matrices of the path that writes them
_PEERS = {  # package: the function that multiplies images (Na, P, D) by images (Nb, P, D); it sums the maxima too
    "flash_maxsim": "flash_maxsim_batched",
    "late_interaction_kernels": "maxsim",
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Hold how much is measured."""

    gemm: int
    block: int
    """Images of the two blocks that the kernels compare."""
    groups: tuple[int, ...]
    patches: int
    dim: int
    models: tuple[str, ...]
    images: int
    """That are embedded."""


QUICK = Sizes(gemm=4096, block=16, groups=(60,), patches=256, dim=384, models=("vit_small_patch14_dinov2",), images=64)
FULL = Sizes(
    gemm=8192,
    block=64,
    groups=(200, 1000),
    patches=1024,
    dim=1152,
    models=("vit_small_patch14_dinov2", "vit_large_patch14_dinov2"),
    images=256,
)


def gpu(sizes: Sizes) -> list[Record]:
    """Rates of the card, the kernels beside each other and beside float64, whole groups, and embedding.

    Raises:
        SettingsError: this machine has no GPU.
    """
    if not torch.cuda.is_available():
        raise SettingsError("the benchmark gpu needs a GPU that torch can use, and this machine has none.")
    steps: list[tuple[str, Callable[[], list[Record]]]] = [
        ("rates", partial(_rates, sizes.gemm)),
        ("exactness", _exactness),
        ("beside the CPU", _beside_cpu),
        ("kernels", partial(_kernels, sizes)),
        *((f"group of {n}", partial(_group, n, sizes)) for n in sizes.groups),
        *((model, partial(embedding, model, sizes.images)) for model in sizes.models),
    ]
    records = []
    for name, step in steps:
        began = time.perf_counter()
        records += step()
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    return records


def peers(images: int, patches: int, dim: int) -> list[Record]:
    """The peers' kernels that are installed, in one direction: they give the sum of an image's maxima."""
    both = prepare(alike(2 * images, patches, dim), device=_DEVICE, precision="fp16")
    a, b = both[:images], both[images:]
    out = torch.empty(images, images, patches, device=_DEVICE)
    cases: dict[str, Callable[[], object]] = {"fused": partial(fused_maxima, a, b, out, None, budget_bytes=_BUDGET)}
    cases |= {
        name: partial(getattr(import_module(name), function), a, b)
        for name, function in _PEERS.items()
        if find_spec(name)
    }
    work = 2 * images**2 * patches**2 * dim / 1e12
    figure = partial(
        Record, benchmark="gpu-peers", case=f"{images} x {images} images P={patches} D={dim}", precision="fp16"
    )
    return [
        figure(metric=f"operations, {name}", value=work / statistics.median(taken), unit="T/s")
        for name, taken in timed(cases, repeats=3).items()
    ]


def timed(cases: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, list[float]]:
    """Take the seconds of each case, turn by turn, by the GPU's own clock, after one turn that warms up."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, run in cases.items():
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            run()
            ended.record()
            torch.cuda.synchronize()
            if turn:
                found[name].append(began.elapsed_time(ended) / 1e3)
    return found


def _rates(n: int) -> list[Record]:
    """What the card can: large multiplications and a copy."""
    a = torch.randn(n, n, device=_DEVICE)
    whole = torch.randint(-127, 128, (n, n), dtype=torch.int8, device=_DEVICE)
    cases: dict[str, Callable[[], object]] = {
        name: partial(torch.mm, a.to(dtype_of(name)), a.to(dtype_of(name)).t()) for name in ("fp32", "fp16", "bf16")
    }
    cases["int8"] = partial(torch._int_mm, whole, whole.t())
    room = torch.empty(2**31, dtype=torch.uint8, device=_DEVICE)
    cases["copy"] = partial(room[: 2**30].copy_, room[2**30 :])
    seconds = {name: statistics.median(taken) for name, taken in timed(cases).items()}
    figure = partial(Record, benchmark="gpu", case=f"{n} x {n} x {n}", unit="T/s")
    return [
        figure(precision=name, metric="operations of a GEMM", value=2 * n**3 / taken / 1e12)
        for name, taken in seconds.items()
        if name != "copy"
    ] + [
        Record(
            benchmark="gpu",
            case="1 GiB",
            precision="",
            metric="copied, bytes read and written",
            value=2**31 / seconds["copy"] / 1e12,
            unit="TB/s",
        )
    ]


def _exactness() -> list[Record]:
    """The largest difference of a cosine from that in float64, over shapes that do not fit the tiles."""
    records = []
    for precision, maxima in (("fp32", cosine_maxima), *((name, fused_maxima) for name in _FAST)):
        worst = 0.0
        for (n, p), (m, q), d in (((3, 196), (5, 196), 384), ((2, 1369), (3, 257), 200), ((4, 31), (2, 1024), 1152)):
            a, b = (prepare(alike(*shape, d), device=_DEVICE, precision=precision) for shape in ((n, p), (m, q)))
            ab, ba = (torch.empty(shape, device=_DEVICE) for shape in ((n, m, p), (m, n, q)))
            maxima(a, b, ab, ba, budget_bytes=_BUDGET)
            scale = 1.0 if precision != "int8" else 1 / 127**2 / d
            full = torch.einsum("ipd,jqd->ijpq", a.double(), b.double())
            for found, right in ((ab, full.amax(3)), (ba, full.amax(2).transpose(0, 1))):
                worst = max(worst, scale * float((found.double() - right).abs().max()))
        metric = "largest difference of a maximum from float64"
        target = "<= 0.0" if precision == "int8" else "<= 1e-5"
        records.append(
            Record(benchmark="gpu", case="3 odd shapes", precision=precision, metric=metric, value=worst, target=target)
        )
    return records


def _beside_cpu() -> list[Record]:
    """The largest difference of an image score from the CPU's in float32, for every schedule."""
    stored, records = alike(40, 256, 384), []
    full, window = (Aggregation(fraction=0.1, window=radius) for radius in (None, 1))
    cases = [("symmetric", full, precision) for precision in ("fp32", "fp16", "bf16", "int8")]
    cases += [("row_stationary", full, "fp16"), ("bounded", full, "fp16"), ("window", window, "fp16")]
    for schedule, aggregation, precision in cases:
        score = partial(score_group, stored, np.arange(40), aggregation=aggregation, memory_bytes=2 * 10**9)
        there = score(device=_DEVICE, precision=precision, schedule=schedule).image_scores
        here = score(schedule="window" if schedule == "window" else "symmetric").image_scores
        gap = float(np.abs(there - here).max())
        metric = f"largest difference of an image score from the CPU's, {schedule}"
        target = f"<= {1e-6 if precision == 'fp32' else 1e-3}"
        records.append(
            Record(
                benchmark="gpu",
                case="group of 40, P=256 D=384",
                precision=precision,
                metric=metric,
                value=gap,
                target=target,
            )
        )
    return records


def _kernels(sizes: Sizes) -> list[Record]:
    """Both directions of two blocks, by the fused kernel and by writing similarity matrices."""
    n, p, d = sizes.block, sizes.patches, sizes.dim
    records, stored = [], alike(2 * n, p, d)
    work = 2 * n * n * p * p * d / 1e12
    for precision in _FAST:
        both = prepare(stored, device=_DEVICE, precision=precision)
        a, b = both[:n], both[n:]
        ab, ba = (torch.empty(n, n, p, device=_DEVICE) for _ in range(2))
        cases: dict[str, Callable[[], object]] = {
            "fused": partial(fused_maxima, a, b, ab, ba, budget_bytes=_BUDGET),
            "written": partial(cosine_maxima, a, b, ab, ba, budget_bytes=_BUDGET, fused=False),
        }
        seconds = timed(cases)
        figure = partial(Record, benchmark="gpu", case=f"{n} x {n} images P={p} D={d}", precision=precision)
        for name, taken in seconds.items():
            rate = work / statistics.median(taken)
            records.append(figure(metric=f"operations, {name}", value=rate, unit="T/s"))
        speed = ratio(seconds["written"], seconds["fused"])
        records.append(figure(metric="speed of fused over written", value=speed, unit="x"))
    return records


def _group(n: int, sizes: Sizes) -> list[Record]:
    """A whole group from its stored embeddings to its scores, full and bounded."""
    p, d = sizes.patches, sizes.dim
    stored, records = alike(n, p, d), []
    for precision in _FAST:
        found: dict[str, np.ndarray] = {}

        def score(schedule: str, precision: str = precision, found: dict[str, np.ndarray] = found) -> None:
            found[schedule] = score_group(
                stored,
                np.arange(n),
                aggregation=Aggregation(fraction=0.05),
                device=_DEVICE,
                precision=precision,
                schedule=schedule,
                memory_bytes=_MEMORY,
            ).image_scores

        schedules = ("symmetric", "bounded") if precision == "fp16" and n <= _BOUNDED else ("symmetric",)
        cases: dict[str, Callable[[], object]] = {schedule: partial(score, schedule) for schedule in schedules}
        cases["prepare"] = partial(_prepared, stored, precision)
        seconds = timed(cases, repeats=2)
        figure = partial(Record, benchmark="gpu", case=f"group of {n}, P={p} D={d}, nearest 5%", precision=precision)
        median = {name: statistics.median(taken) for name, taken in seconds.items()}
        rate = n * n * p * p * d / median["symmetric"] / 1e12
        records += [
            figure(metric="images per second, full search", value=n / median["symmetric"], unit="1/s"),
            figure(metric="operations, full search", value=rate, unit="T/s"),
            figure(metric="share of it that prepares vectors", value=median["prepare"] / median["symmetric"]),
        ]
        if "bounded" in found:
            speed = ratio(seconds["symmetric"], seconds["bounded"])
            gap = float(np.abs(found["symmetric"] - found["bounded"]).max())
            records += [
                figure(metric="speed of bounded over symmetric", value=speed, unit="x"),
                figure(metric="largest difference of an image score", value=gap),
            ]
    return records


def _prepared(stored: np.ndarray, precision: str) -> None:
    """Prepare the vectors of a group in blocks, as scoring does."""
    for first in range(0, len(stored), 256):
        prepare(stored[first : first + 256], device=_DEVICE, precision=precision)


def alike(n: int, p: int, d: int, seed: int = 0) -> np.ndarray:
    """Draw embeddings float16 (N, P, D) of parts that lie alike, with a mark in every tenth image."""
    own = torch.Generator(_DEVICE).manual_seed(seed)
    draw = partial(torch.randn, device=_DEVICE, generator=own)
    places, ways = draw(p, d), draw(16, d)
    out = np.empty((n, p, d), np.float16)
    marked: Sequence[int] = range(0, n, 10)
    for image in range(n):
        vectors = places + draw(p, 16) @ ways / 8 + draw(p, d) / 2
        if image in marked:
            vectors[: max(1, p // 100)] += draw(1, d)
        out[image] = torch.nn.functional.normalize(vectors, dim=1).half().cpu().numpy()
    return out
