"""Leave-one-out scores of a group: every image against all others (method.md sections 2 to 4 and 9).

Two schedules, same numbers. *symmetric*: each pair of images is multiplied once and gives both directions, into a
strip (N, N, P). *row_stationary*: a block of query images stays while the references stream past.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from patchead.numerics.aggregate import Rule, count_references, image_scores, neighbours, reference_mask
from patchead.numerics.kmean import KMean
from patchead.numerics.memory import block_images, candidate_bytes, choose_schedule, product_bytes, strip_bytes
from patchead.numerics.panel import reference_panel
from patchead.numerics.rows import finish, reduce_rows, score_rows
from patchead.numerics.similarity import cosine_maxima, cosine_maxima_self, to_distance_
from patchead.numerics.vectors import cosine_step, dtype_of, maxima_dtype, prepare, room
from patchead.threads import slices

__all__ = [
    "GroupScores",
    "Rule",
    "block_images",
    "choose_schedule",
    "reduce_rows",
    "reference_panel",
    "score_group",
    "score_rows",
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
    rule: Rule,
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
        rule: aggregation.
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
    job = _Job(embeddings, content, part, count_references(content, part, panel), rule, device, precision, memory_bytes)
    if (
        panel is None
        and queries is None
        and choose_schedule(n, p, memory_bytes, schedule, precision=precision) == "symmetric"
    ):
        patch_scores = _symmetric(job)
    else:
        patch_scores = _row_stationary(job, np.arange(n) if panel is None else panel, n if queries is None else queries)
    counts = job.n_references[:queries]
    return GroupScores(patch_scores, image_scores(patch_scores, rule.image_top_fraction), counts)


@dataclass(frozen=True)
class _Job:
    """The arguments of `score_group`, checked."""

    embeddings: np.ndarray
    content: np.ndarray
    part: np.ndarray
    n_references: np.ndarray
    rule: Rule
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
            fraction=self.rule.fraction,
            references=references,
        )

    def prepare(self, images: slice) -> torch.Tensor:
        positions = np.arange(images.start, images.stop)
        return prepare(self.embeddings[images], device=self.device, precision=self.precision, positions=positions)


def _symmetric(job: _Job) -> np.ndarray:
    """Each pair of images multiplied once into the strip of cosines (N, N, P), then every row reduced."""
    n, p, _ = job.embeddings.shape
    size, budget = job.block_images("symmetric", n), product_bytes(job.memory_bytes)
    strip = room((n, n, p), maxima_dtype(dtype_of(job.precision)), job.device)
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
        mean = KMean(neighbours(job.n_references[rows], job.rule.fraction), p, job.rule.aggregate, job.device, n)
        mean.add(distances, reference_mask(job.content, job.part, rows, slice(None)))
        out[rows] = finish(mean, np.arange(n)[rows], job.n_references[rows])
    return out


def _row_stationary(job: _Job, columns: np.ndarray, queries: int) -> np.ndarray:
    """Query blocks one after the other; the images at ``columns`` stream past each."""
    p = job.embeddings.shape[1]
    size = job.block_images("row_stationary", len(columns))
    out = np.empty((queries, p), np.float32)
    for rows in slices(queries, size):
        out[rows] = score_rows(
            job.embeddings[rows],
            np.arange(queries)[rows],
            ((columns[cut], job.embeddings[columns[cut]]) for cut in slices(len(columns), size)),
            job.content,
            job.part,
            rule=job.rule,
            device=job.device,
            precision=job.precision,
            memory_bytes=job.memory_bytes,
            n_references=job.n_references[rows],
        )
    return out
