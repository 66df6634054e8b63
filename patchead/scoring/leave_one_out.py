"""Leave-one-out scores of a group: every image against all others (method.md §2 to §4, §9.3).

Two schedules, same numbers. *symmetric*: each pair of images is multiplied once and gives both directions, into a
strip (N, N, P). *row_stationary*: a block of query images stays while the references stream past.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isqrt
from typing import Any

import numpy as np
import torch

from patchead.batches import slices
from patchead.scoring import quantize
from patchead.scoring.aggregate import Aggregation, count_references, image_scores, neighbours, reference_mask
from patchead.scoring.burn_out import BurnOut, Evidence
from patchead.scoring.memory_budget import Workload, matmul_bytes
from patchead.scoring.nearest_mean import NearestMean
from patchead.scoring.panel import reference_panel
from patchead.scoring.precision import allocate, dtype_of, maxima_dtype, prepare
from patchead.scoring.query_block import finish, reduce_query_block, score_query_block
from patchead.scoring.repeats import Repeat
from patchead.scoring.rescore import Compared, rescore
from patchead.scoring.similarity import cosine_maxima, cosine_maxima_self, to_distance_

__all__ = [
    "Aggregation",
    "GroupScores",
    "reduce_query_block",
    "reference_panel",
    "score_group",
    "score_query_block",
]


@dataclass(frozen=True)
class GroupScores:
    """Hold the scores of the N images of a group, in its order; NaN where an image has no reference."""

    patch_scores: np.ndarray
    """float32 (N, P), in [0, 1]."""
    image_scores: np.ndarray
    """float64 (N,), in [0, 1]."""
    n_references: np.ndarray
    """int32 (N,)."""
    repeats: list[Repeat] = field(default_factory=list)
    """Regions that some images share, with `Aggregation.repeats`; those images were scored without each other."""
    exact: np.ndarray | None = None
    """bool (N, P), False where a patch score is an upper bound (method.md §10); None: all are exact."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """How bound and refine went, see `bounded_group.BoundedScores`; of the full search ``multiplications`` alone:
    a half where each pair is multiplied once."""

    @property
    def exact_images(self) -> np.ndarray | None:
        """Tell which images have no upper bound among their patch scores: bool (N,), None where all have none."""
        return None if self.exact is None else np.asarray(self.exact.all(axis=1))


def score_group(
    embeddings: np.ndarray,
    content: np.ndarray,
    part: np.ndarray | None = None,
    *,
    aggregation: Aggregation,
    device: str = "cpu",
    precision: str = "fp32",
    schedule: str = "auto",
    memory_bytes: int,
    panel: np.ndarray | None = None,
    queries: int | None = None,
    grid: tuple[int, int] | None = None,
) -> GroupScores:
    """Score a whole group in this process.

    Args:
        embeddings: float16 (N, P, D), unit vectors.
        content: int64 (N,), equal where the files are equal.
        part: int64 (N,), the physical part, -1 where unknown; default: unknown everywhere.
        aggregation: how distances become scores (method.md §3 and §4).
        device: torch device.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``: the arithmetic of the similarities.
        schedule: ``auto``, ``symmetric`` or ``row_stationary``. A panel always streams (row_stationary).
        memory_bytes: budget for everything but ``embeddings``.
        panel: positions of the only images that may be references (`reference_panel`); default: all.
        queries: score the first images only; those behind them, the prompts of few-shot mode, are references at most.
        grid: (h, w) of one view's patches, by which a repeated region lies together; default: a square.

    Raises:
        PatcheadError: an embedding is zero, infinite or NaN.
        PlanError: the budget does not hold the schedule, or not even one image.
        SettingsError: unknown precision or schedule.
        ValueError: arrays of different lengths.
    """
    n, p, _ = embeddings.shape
    part = np.full(n, -1, np.int64) if part is None else part
    if len(content) != n or len(part) != n:
        raise ValueError(f"content and part must have the {n} entries of embeddings; got {len(content)}, {len(part)}")
    if aggregation.window is not None:
        raise ValueError("the window rule is not of the full search: use search.score.score_group")
    job = _Job(
        embeddings=embeddings,
        content=content,
        part=part,
        n_references=count_references(content, part, panel),
        references=np.arange(n) if panel is None else panel,
        queries=n if queries is None else queries,
        aggregation=aggregation,
        device=device,
        precision=precision,
        memory_bytes=memory_bytes,
        grid=grid or (isqrt(p), max(1, p // max(1, isqrt(p)))),
    )
    everything = panel is None and queries is None
    symmetric = everything and job.work.choose_schedule(memory_bytes, schedule) == "symmetric"
    if symmetric:
        strip = allocate((n, n, p), maxima_dtype(dtype_of(precision)), device)
        for rows, columns, a, b in _pairs(job):
            if b is None:
                cosine_maxima_self(a, strip[rows, rows], budget_bytes=matmul_bytes(memory_bytes))
            else:
                there, back = strip[rows, columns], strip[columns, rows]
                cosine_maxima(a, b, there, back, budget_bytes=matmul_bytes(memory_bytes))
            del a, b  # before the next ones are made
        patch_scores, evidence = _reduced(job, strip)
        del strip
    else:
        patch_scores, evidence = np.empty((job.queries, p), np.float32), list[Evidence]()
        for rows, arguments in _query_blocks(job):
            test = job.burn_out(rows)
            patch_scores[rows] = score_query_block(**arguments, burn_out=test)
            evidence += [test.result()] if test is not None else []
    counts = job.n_references[:queries]
    done = rescore(patch_scores, counts, evidence, job.compared, lambda index: embeddings[index])
    found = image_scores(done.patch_scores, aggregation.image_top_fraction)
    share = {"multiplications": 0.5 if symmetric else 1.0}
    return GroupScores(done.patch_scores, found, done.n_references, done.repeats, search=share)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The arguments of `score_group`, checked; ``references`` are positions, the first ``queries`` are scored."""

    embeddings: np.ndarray
    content: np.ndarray
    part: np.ndarray
    n_references: np.ndarray
    references: np.ndarray
    queries: int
    aggregation: Aggregation
    device: str
    precision: str
    memory_bytes: int
    grid: tuple[int, int]

    @property
    def compared(self) -> Compared:
        names = ("content", "part", "references", "aggregation", "device", "precision", "memory_bytes", "grid")
        return Compared(**{name: getattr(self, name) for name in names})

    def burn_out(self, rows: slice) -> BurnOut | None:
        return self.compared.burn_out(np.arange(self.queries)[rows], self.work.patches, self.n_references)

    @cached_property
    def work(self) -> Workload:
        n, p, d = self.embeddings.shape
        return Workload(
            images=n,
            patches=p,
            dim=d,
            references=len(self.references),
            precision=self.precision,
            fraction=self.aggregation.fraction,
            repeats=self.aggregation.finds_repeats,
        )

    def prepare(self, images: slice) -> torch.Tensor:
        positions = np.arange(images.start, images.stop)
        return prepare(self.embeddings[images], device=self.device, precision=self.precision, positions=positions)


def _pairs(job: _Job) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor | None]]:
    """Every pair of blocks of the group, prepared; a block with itself comes without the second."""
    n = job.work.images
    size = job.work.block_images(job.memory_bytes, "symmetric")
    for rows in slices(n, size):
        a = job.prepare(rows)
        yield rows, rows, a, None
        for columns in slices(n, size, start=rows.stop):
            yield rows, columns, a, job.prepare(columns)


def _query_blocks(job: _Job) -> Iterator[tuple[slice, dict[str, Any]]]:
    """The images of each query block, and what `score_query_block` takes for it."""
    size = job.work.block_images(job.memory_bytes, "row_stationary")
    columns = [job.references[cut] for cut in slices(len(job.references), size)]
    shared = ("content", "part", "aggregation", "device", "precision", "memory_bytes")
    for rows in slices(job.queries, size):
        yield (
            rows,
            {name: getattr(job, name) for name in shared}
            | {
                "query": job.embeddings[rows],
                "query_index": np.arange(job.queries)[rows],
                "blocks": ((column, job.embeddings[column]) for column in columns),
                "n_references": job.n_references[rows],
            },
        )


def _reduced(job: _Job, strip: torch.Tensor) -> tuple[np.ndarray, list[Evidence]]:
    """Patch scores float32 (N, P), and evidence, from the strip of cosines (N, N, P), some images at a time."""
    n, p = job.work.images, job.work.patches
    step = quantize.cosine_step(job.work.dim) if job.precision == "int8" else 1.0
    out, evidence = np.empty((n, p), np.float32), list[Evidence]()
    # The similarity matrix's share is free again by now.
    for rows in slices(n, max(1, matmul_bytes(job.memory_bytes) // job.work.strip_reduction_bytes)):
        distances = to_distance_(strip[rows].to(torch.float32, copy=True), step)
        k = neighbours(job.n_references[rows], job.aggregation.fraction)
        mean = NearestMean(k, p, job.aggregation.aggregate, job.device, n)
        allowed = reference_mask(job.content, job.part, rows, slice(None))
        mean.add(distances, allowed)
        out[rows] = finish(mean, np.arange(n)[rows], job.n_references[rows])
        if (test := job.burn_out(rows)) is not None:
            test.add(distances, allowed, np.arange(n))
            evidence.append(test.result())
    return out, evidence
