"""Leave-one-out scores of a group: every image against all others (method.md §2 to §4, §9.3).

Two schedules, same numbers. *symmetric*: each pair of images is multiplied once and gives both directions, into a
strip (N, N, P). *row_stationary*: a block of query images stays while the references stream past.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from patchead.batches import slices
from patchead.scoring.aggregate import Aggregation, count_references, image_scores, neighbours, reference_mask
from patchead.scoring.memory_budget import block_images, candidate_bytes, choose_schedule, matmul_bytes, strip_bytes
from patchead.scoring.nearest_mean import NearestMean
from patchead.scoring.panel import reference_panel
from patchead.scoring.precision import allocate, cosine_step, dtype_of, maxima_dtype, prepare
from patchead.scoring.query_block import finish, reduce_query_block, score_query_block
from patchead.scoring.similarity import cosine_maxima, cosine_maxima_self, to_distance_

__all__ = [
    "Aggregation",
    "GroupScores",
    "block_images",
    "choose_schedule",
    "reduce_query_block",
    "reference_panel",
    "score_group",
    "score_query_block",
    "strip_bytes",
]


@dataclass(frozen=True)
class GroupScores:
    """Scores of the N images of a group, in its order; NaN where an image has no reference."""

    patch_scores: np.ndarray
    """float32 (N, P), in [0, 1]."""
    image_scores: np.ndarray
    """float64 (N,), in [0, 1]."""
    n_references: np.ndarray
    """int32 (N,)."""


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
) -> GroupScores:
    """Score a whole group in this process.

    Args:
        embeddings: float16 (N, P, D), unit vectors.
        content: int64 (N,), equal where the files are equal.
        part: int64 (N,), the physical part, -1 where unknown; default: unknown everywhere.
        aggregation: how distances become scores (method.md §3 and §4).
        device: torch device.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8`` products.
        schedule: ``auto``, ``symmetric`` or ``row_stationary``. A panel always streams (row_stationary).
        memory_bytes: budget for everything but ``embeddings``.
        panel: positions of the only images that may be references (`reference_panel`); default: all.
        queries: score the first images only; those behind them, the prompts of few-shot mode, are references at most.

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
    job = _Job(
        embeddings, content, part, count_references(content, part, panel), aggregation, device, precision, memory_bytes
    )
    if (
        panel is None
        and queries is None
        and choose_schedule(n, p, memory_bytes, schedule, precision=precision) == "symmetric"
    ):
        patch_scores = _symmetric(job)
    else:
        patch_scores = _row_stationary(job, np.arange(n) if panel is None else panel, n if queries is None else queries)
    counts = job.n_references[:queries]
    return GroupScores(patch_scores, image_scores(patch_scores, aggregation.image_top_fraction), counts)


@dataclass(frozen=True)
class _Job:
    """The arguments of `score_group`, checked."""

    embeddings: np.ndarray
    content: np.ndarray
    part: np.ndarray
    n_references: np.ndarray
    aggregation: Aggregation
    device: str
    precision: str
    memory_bytes: int

    def block_images(self, schedule: str, references: int) -> int:
        n, p, d = self.embeddings.shape
        return block_images(
            n,
            p,
            d,
            self.memory_bytes,
            schedule=schedule,
            precision=self.precision,
            fraction=self.aggregation.fraction,
            references=references,
        )

    def prepare(self, images: slice) -> torch.Tensor:
        positions = np.arange(images.start, images.stop)
        return prepare(self.embeddings[images], device=self.device, precision=self.precision, positions=positions)


def _symmetric(job: _Job) -> np.ndarray:
    """Each pair of images multiplied once into the strip of cosines (N, N, P), then every row reduced."""
    n, p, _ = job.embeddings.shape
    size, budget = job.block_images("symmetric", n), matmul_bytes(job.memory_bytes)
    strip = allocate((n, n, p), maxima_dtype(dtype_of(job.precision)), job.device)
    step = 1.0
    for rows in slices(n, size):
        a = job.prepare(rows)
        step = cosine_step(a)
        cosine_maxima_self(a, strip[rows, rows], budget_bytes=budget)
        for columns in slices(n, size, start=rows.stop):
            b = job.prepare(columns)
            cosine_maxima(a, b, strip[rows, columns], strip[columns, rows], budget_bytes=budget)
            del b  # before the next one is made
    out = np.empty((n, p), np.float32)
    # A row takes its distances and as many candidates. The product's share is free again by now.
    for rows in slices(n, max(1, budget // (2 * candidate_bytes(n, p)))):
        distances = to_distance_(strip[rows].to(torch.float32, copy=True), step)
        mean = NearestMean(
            neighbours(job.n_references[rows], job.aggregation.fraction), p, job.aggregation.aggregate, job.device, n
        )
        mean.add(distances, reference_mask(job.content, job.part, rows, slice(None)))
        out[rows] = finish(mean, np.arange(n)[rows], job.n_references[rows])
    return out


def _row_stationary(job: _Job, columns: np.ndarray, queries: int) -> np.ndarray:
    """Query blocks one after the other; the images at ``columns`` stream past each."""
    p = job.embeddings.shape[1]
    size = job.block_images("row_stationary", len(columns))
    out = np.empty((queries, p), np.float32)
    for rows in slices(queries, size):
        out[rows] = score_query_block(
            job.embeddings[rows],
            np.arange(queries)[rows],
            ((columns[cut], job.embeddings[columns[cut]]) for cut in slices(len(columns), size)),
            job.content,
            job.part,
            aggregation=job.aggregation,
            device=job.device,
            precision=job.precision,
            memory_bytes=job.memory_bytes,
            n_references=job.n_references[rows],
        )
    return out
