"""How fast is the kernel? patchead, a textbook cdist loop and the bare matrix multiplication, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.records import Record, interleaved, measurable, not_measured, note_for, ratio
from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.leave_one_out import Aggregation, score_group

MEMORY = 4 * 10**9
_GEMM_ROWS = 4096
_GEMM_TIMES = 8  # per turn: one takes a tenth of a second, and a machine's speed moves within that
_PRESUMED = 3.4  # times the speed of fp32: the ratio of the targets of int8 to those of fp32; AMX has 3.8
_TARGETS = {  # (N, P, D): metric: precision: target
    (32, 1024, 384): {
        "speed over the cdist loop": {"fp32": ">= 3.5", "int8": ">= 12"},
        "full-work FLOP/s over the fp32 GEMM": {"fp32": ">= 1.7", "int8": ">= 6"},
    },
    (200, 256, 768): {"speed over the cdist loop": {"fp32": ">= 3", "int8": ">= 10"}},
}


def scoring(
    n: int, p: int, d: int, *, precisions: tuple[str, ...], repeats: int, name: str = "scoring"
) -> list[Record]:
    """Leave-one-out scores of one group of N images, P patches, D dimensions, with all threads of torch.

    A target of int8 is one of processors on which it is as fast as the target presumes.
    """
    asked, precisions = precisions, tuple(measurable(precisions))
    stored = unit_vectors(n, p, d)
    floats = torch.from_numpy(stored.astype(np.float32))
    cases: dict[str, Callable[[], object]] = {"cdist": partial(cdist_loop, floats)}
    for precision in precisions:
        cases[precision] = partial(
            score_group, stored, np.arange(n), aggregation=Aggregation(), precision=precision, memory_bytes=MEMORY
        )
        # Right behind each: what a shared machine gives changes within the ten seconds of the cdist loop.
        cases[f"gemm {precision}"] = _matmul(floats)
    seconds = interleaved(cases, repeats)
    rows = min(_GEMM_ROWS, n * p)
    work = n**2 * p**2 / (_GEMM_TIMES * rows**2)  # both directions of every pair, in units of one GEMM
    records = []
    figure = partial(Record, benchmark=name, case=f"N={n} P={p} D={d}")
    targets = _TARGETS.get((n, p, d), {})
    for precision in precisions:
        metrics = {
            "speed over the cdist loop": ratio(seconds["cdist"], seconds[precision]),
            "full-work FLOP/s over the fp32 GEMM": work * ratio(seconds[f"gemm {precision}"], seconds[precision]),
        }
        for metric, value in metrics.items():
            target = targets.get(metric, {}).get(precision)
            note = note_for(precision, _PRESUMED) if target else ""
            records.append(figure(precision=precision, metric=metric, value=value, unit="x", target=target, note=note))
        median = statistics.median(seconds[precision])
        records.append(figure(precision=precision, metric="images per second", value=n / median, unit="1/s"))
    gemms = [taken for precision in precisions for taken in seconds[f"gemm {precision}"]]
    rate = _GEMM_TIMES * 2 * rows**2 * d / statistics.median(gemms) / 1e9
    records.append(figure(precision="fp32", metric="GEMM rate", value=rate, unit="GFLOP/s"))
    return records + not_measured(name, f"N={n} P={p} D={d}", asked, "speed over the cdist loop")


def cdist_loop(
    embeddings: torch.Tensor, fraction: float = 0.3, top: float = 0.01, queries: int | None = None
) -> torch.Tensor:
    """The baseline: per image, all distances to all references by ``torch.cdist``. (N, P, D) to image scores (N,).

    ``queries``: the first images only.
    """
    n, p, _ = embeddings.shape
    k, m = max(1, int(fraction * (n - 1))), max(1, int(top * p))
    scores = []
    for i in range(queries or n):
        references = torch.cat([embeddings[:i], embeddings[i + 1 :]]).flatten(0, 1)
        nearest = torch.cdist(embeddings[i], references).view(p, n - 1, p).min(dim=2).values ** 2 / 4
        patches = nearest.topk(k, dim=1, largest=False).values.mean(dim=1)
        scores.append(patches.topk(m).values.mean())
    return torch.stack(scores)


def _matmul(embeddings: torch.Tensor) -> Callable[[], torch.Tensor]:
    block = embeddings.flatten(0, 1)[:_GEMM_ROWS]
    out = torch.empty(len(block), len(block))

    def gemms() -> torch.Tensor:
        for _ in range(_GEMM_TIMES):
            torch.mm(block, block.T, out=out)
        return out

    return gemms
