"""Leave-one-out scores of a group: every image against all others (method.md sections 2 to 4 and 9).

Two schedules, same numbers. *symmetric*: each pair of images is multiplied once and gives both directions, into a
strip (N, N, P). *row_stationary*: a block of query images stays while the references stream past.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
import torch

from patchead.errors import PatcheadError, PlanError, SettingsError, bad_value
from patchead.numerics.aggregate import AGGREGATES, KMean, count_references, image_scores, neighbours, reference_mask
from patchead.numerics.memory import (
    block_images,
    candidate_bytes,
    candidates,
    choose_schedule,
    product_bytes,
    scratch_bytes,
    strip_bytes,
    vector_bytes,
)
from patchead.numerics.similarity import (
    cosine_maxima,
    cosine_maxima_self,
    dtype_of,
    one_way,
    prepare,
    to_distance_,
)

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
class Rule:
    """How distances become scores. Raises `SettingsError` for a value that has no meaning."""

    aggregate: Literal["nearest", "farthest"] = "nearest"
    """Mean of the K nearest, or of the K farthest, references."""
    fraction: float = 0.3
    """K as a fraction of the references."""
    image_top_fraction: float = 0.01
    """Image score: mean of this fraction of the largest patch scores; 0 is the single maximum."""

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise SettingsError(bad_value("scoring.aggregate", self.aggregate, f"one of {', '.join(AGGREGATES)}"))
        if not 0 < self.fraction <= 1:
            raise SettingsError(bad_value("scoring.fraction", self.fraction, "above 0 and at most 1"))
        if not 0 <= self.image_top_fraction <= 1:
            raise SettingsError(bad_value("scoring.image_top_fraction", self.image_top_fraction, "from 0 to 1"))


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
) -> GroupScores:
    """Score a whole group in this process.

    Args:
        embeddings: float16 (N, P, D), unit vectors.
        content: int64 (N,), equal where the files are equal.
        part: int64 (N,), the physical part, -1 where unknown; default: unknown everywhere.
        rule: aggregation.
        device: torch device.
        precision: ``fp32``, ``fp16`` or ``bf16`` products.
        schedule: ``auto``, ``symmetric`` or ``row_stationary``. A panel always streams (row_stationary).
        memory_bytes: budget for everything but ``embeddings``.
        panel: positions of the only images that may be references (`reference_panel`); default: all.

    Raises:
        PatcheadError: an embedding is zero, infinite or NaN.
        PlanError: the budget does not hold the schedule, or not even one image.
        SettingsError: unknown precision or schedule.
        ValueError: arrays of different lengths.
    """
    n, p, d = embeddings.shape
    part = np.full(n, -1, np.int64) if part is None else part
    if len(content) != n or len(part) != n:
        raise ValueError(f"content and part must have the {n} entries of embeddings; got {len(content)}, {len(part)}")
    n_references = count_references(content, part, panel)
    chosen = "row_stationary"
    if panel is None:
        chosen = choose_schedule(n, p, memory_bytes, schedule, precision=precision)
    columns = np.arange(n) if panel is None else panel
    size = block_images(
        n, p, d, memory_bytes, schedule=chosen, precision=precision, fraction=rule.fraction, references=len(columns)
    )
    if chosen == "symmetric":
        strip = _strip(embeddings, size, device, precision, product_bytes(memory_bytes))
        patch_scores = _reduce_strip(strip, content, part, rule, n_references, memory_bytes)
    else:
        patch_scores = np.empty((n, p), np.float32)
        for rows in _slices(n, size):
            blocks = ((columns[cut], embeddings[columns[cut]]) for cut in _slices(len(columns), size))
            patch_scores[rows] = score_rows(
                embeddings[rows],
                np.arange(n)[rows],
                blocks,
                content,
                part,
                rule=rule,
                device=device,
                precision=precision,
                memory_bytes=memory_bytes,
                n_references=n_references[rows],
            )
    return GroupScores(patch_scores, image_scores(patch_scores, rule.image_top_fraction), n_references)


def score_rows(
    query: np.ndarray,
    row_index: np.ndarray,
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    content: np.ndarray,
    part: np.ndarray,
    *,
    rule: Rule,
    device: str = "cpu",
    precision: str = "fp32",
    memory_bytes: int,
    n_references: np.ndarray,
) -> np.ndarray:
    """Row-stationary: patch scores float32 (B, P) of a query block while its references stream past.

    Args:
        query: float16 (B, P, D).
        row_index: int (B,), positions of the query images in the group.
        blocks: ``(columns (n,), embeddings (n, P, D))`` in any order and size; each position at most once. Held one
            at a time, and not counted in ``memory_bytes``.
        content, part: int64 (N,), of the whole group, see `score_group`.
        rule, device, precision, memory_bytes: see `score_group`.
        n_references: int (B,), references each row must meet on the way.

    Raises:
        PatcheadError: a row met another number of references than announced (a block was lost or came twice),
            or an embedding is zero, infinite or NaN.
        PlanError: the budget does not hold this many query images; see `block_images`.
    """
    b, p, d = query.shape
    k = neighbours(n_references, rule.fraction)
    held = candidates(int(n_references.max(initial=1)), rule.fraction)
    vectors, rows = (
        vector_bytes(p, d, precision),
        prepare(query, device=device, precision=precision, positions=row_index),
    )
    free = memory_bytes - 2 * product_bytes(memory_bytes) - scratch_bytes(len(content), p, d)
    step = (free - b * (vectors + candidate_bytes(held, p))) // (vectors + b * p * 4)
    if step < 1:
        raise PlanError(
            f"scoring.memory_gb ({memory_bytes / 1e9:.3g} GB) does not hold {b} query images beside one reference. "
            "Use query blocks of block_images(...) images, or raise it."
        )
    mean = KMean(k, p, rule.aggregate, device, held)
    for columns, embeddings in blocks:
        for cut in _slices(len(columns), step):
            references = prepare(embeddings[cut], device=device, precision=precision, positions=columns[cut])
            distances = one_way(rows, references, budget_bytes=product_bytes(memory_bytes))
            mean.add(distances, reference_mask(content, part, row_index, columns[cut]))
    return _finish(mean, row_index, n_references)


def reduce_rows(
    parts: Iterable[tuple[np.ndarray, np.ndarray | torch.Tensor]],
    row_index: np.ndarray,
    content: np.ndarray,
    part: np.ndarray,
    rule: Rule,
    n_references: np.ndarray,
    device: str = "cpu",
) -> np.ndarray:
    """Patch scores float32 (B, P) of one row block from the tiles of a distributed symmetric schedule.

    Args:
        parts: ``(columns (n,), distances (B, n, P))`` as from `similarity.tile`, in any order.
        row_index, content, part, rule, n_references: see `score_rows`.
        device: where to reduce.

    Raises:
        PatcheadError: a row met another number of references than announced.
        ValueError: no part at all.
    """
    mean: KMean | None = None
    held = candidates(int(n_references.max(initial=1)), rule.fraction)
    for columns, values in parts:
        distances = torch.as_tensor(values, dtype=torch.float32, device=device)
        if mean is None:
            k = neighbours(n_references, rule.fraction)
            mean = KMean(k, distances.shape[2], rule.aggregate, device, held)
        mean.add(distances, reference_mask(content, part, row_index, columns))
    if mean is None:
        raise ValueError("reduce_rows needs at least one part")
    return _finish(mean, row_index, n_references)


def reference_panel(image_ids: list[str], size: int, seed: int) -> np.ndarray:
    """Positions, ascending int64, of the ``size`` images that serve as everybody's references (method.md section 9).

    Drawn by a hash of seed and image id: the same images whatever the order of the list, and mostly the same ones
    when images come or go. All positions where the group is not larger than ``size``.

    Raises:
        SettingsError: size below 1.
    """
    if size < 1:
        raise SettingsError(bad_value("scoring.max_references", size, "at least 1"))
    draws = [blake2b(f"{seed}:{image_id}".encode(), digest_size=16).digest() for image_id in image_ids]
    return np.sort(np.array(sorted(range(len(draws)), key=draws.__getitem__)[:size], np.int64))


def _strip(embeddings: np.ndarray, size: int, device: str, precision: str, budget: int) -> torch.Tensor:
    """Largest cosines (N, N, P) of every patch of image i to image j, each pair of images multiplied once."""
    n, p, _ = embeddings.shape
    strip = torch.full((n, n, p), -2.0, dtype=dtype_of(precision), device=device)
    position = np.arange(n)
    for rows in _slices(n, size):
        a = prepare(embeddings[rows], device=device, precision=precision, positions=position[rows])
        cosine_maxima_self(a, strip[rows, rows], budget_bytes=budget)
        for columns in _slices(n, size, start=rows.stop):
            b = prepare(embeddings[columns], device=device, precision=precision, positions=position[columns])
            cosine_maxima(a, b, strip[rows, columns], strip[columns, rows], budget_bytes=budget)
    return strip


def _reduce_strip(
    strip: torch.Tensor, content: np.ndarray, part: np.ndarray, rule: Rule, n_references: np.ndarray, memory_bytes: int
) -> np.ndarray:
    n, p = strip.shape[1:]
    out = np.empty((n, p), np.float32)
    # A row takes its distances and as many candidates. The product's share is free again by now.
    step = max(1, product_bytes(memory_bytes) // (2 * candidate_bytes(n, p)))
    for rows in _slices(n, step):
        distances = to_distance_(strip[rows].to(torch.float32, copy=True))
        mean = KMean(neighbours(n_references[rows], rule.fraction), p, rule.aggregate, str(strip.device), n)
        mean.add(distances, reference_mask(content, part, rows, slice(None)))
        out[rows] = _finish(mean, np.arange(n)[rows], n_references[rows])
    return out


def _finish(mean: KMean, row_index: np.ndarray, n_references: np.ndarray) -> np.ndarray:
    if (wrong := np.flatnonzero(mean.seen != n_references)).size:
        row = wrong[0]
        raise PatcheadError(
            f"image {row_index[row]} of the group met {mean.seen[row]} references, not {n_references[row]}: "
            "a block of references was lost or came twice. Nothing was scored; run the group again."
        )
    return mean.result().cpu().numpy()


def _slices(n: int, size: int, start: int = 0) -> Iterator[slice]:
    for first in range(start, n, size):
        yield slice(first, min(first + size, n))
