"""Patch scores of one block of images, from references that stream past or from finished tiles."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from patchead.batches import slices
from patchead.errors import PatcheadError
from patchead.scoring.aggregate import Aggregation, neighbours, reference_mask
from patchead.scoring.burn_out import BurnOut
from patchead.scoring.memory_budget import Workload, matmul_bytes
from patchead.scoring.nearest_mean import NearestMean
from patchead.scoring.precision import allocate, cosine_step, prepare
from patchead.scoring.similarity import cosine_maxima, to_distance_


def score_query_block(
    query: np.ndarray,
    query_index: np.ndarray,
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    content: np.ndarray,
    part: np.ndarray,
    *,
    aggregation: Aggregation,
    device: str = "cpu",
    precision: str = "fp32",
    memory_bytes: int,
    n_references: np.ndarray,
    burn_out: BurnOut | None = None,
) -> np.ndarray:
    """Score a query block while its references stream past (row-stationary): patch scores float32 (B, P).

    Args:
        query: float16 (B, P, D).
        query_index: int (B,), positions of the query images in the group.
        blocks: ``(columns (n,), embeddings (n, P, D))`` in any order and size, held one at a time; each position at
            most once.
        content, part: int64 (N,), of the whole group; see `reference_mask`.
        aggregation: how distances become scores (method.md §3 and §4).
        device, precision: of the similarities; see `prepare`.
        memory_bytes: budget for everything but ``query`` and the block in hand.
        n_references: int (B,), references each query must meet on the way.
        burn_out: is given the same distances, where repeats are looked for.

    Raises:
        PatcheadError: a query met another number of references than announced (a block was lost or came twice),
            or an embedding is zero, infinite or NaN.
        PlanError: the budget does not hold this many query images; see `block_images`.
    """
    b, p, d = query.shape
    most = int(n_references.max(initial=1))
    work = Workload(
        images=len(content),
        patches=p,
        dim=d,
        references=most,
        precision=precision,
        fraction=aggregation.fraction,
        repeats=burn_out is not None,
    )
    step = work.references_at_once(memory_bytes, b)
    queries = prepare(query, device=device, precision=precision, positions=query_index)
    mean = NearestMean(
        neighbours(n_references, aggregation.fraction), p, aggregation.aggregate, device, work.candidates
    )
    for columns, embeddings in blocks:
        for cut in slices(len(columns), step):
            vectors = prepare(embeddings[cut], device=device, precision=precision, positions=columns[cut])
            maxima = allocate((b, len(vectors), p), torch.float32, queries.device)
            cosine_maxima(queries, vectors, maxima, None, budget_bytes=matmul_bytes(memory_bytes))
            distances = to_distance_(maxima, cosine_step(queries))
            allowed = reference_mask(content, part, query_index, columns[cut])
            mean.add(distances, allowed)
            if burn_out is not None:
                burn_out.add(distances, allowed, columns[cut])
            del vectors, distances, maxima  # before the next ones are made
        del embeddings
    return finish(mean, query_index, n_references)


def reduce_query_block(
    parts: Iterable[tuple[np.ndarray, np.ndarray | torch.Tensor]],
    query_index: np.ndarray,
    content: np.ndarray,
    part: np.ndarray,
    aggregation: Aggregation,
    n_references: np.ndarray,
    device: str = "cpu",
    burn_out: BurnOut | None = None,
) -> np.ndarray:
    """Reduce the tiles of one query block, of a distributed symmetric schedule, to its patch scores float32 (B, P).

    Args:
        parts: ``(columns (n,), distances (B, n, P))`` as from `similarity.tile`, in any order.
        query_index, content, part, aggregation, n_references: see `score_query_block`.
        device: where to reduce.
        burn_out: is given the same distances, where repeats are looked for.

    Raises:
        PatcheadError: a query met another number of references than announced.
        ValueError: no part at all.
    """
    mean: NearestMean | None = None
    most = int(n_references.max(initial=1))
    for columns, values in parts:
        distances = _tensor(values).to(device, torch.float32)
        if mean is None:
            k = neighbours(n_references, aggregation.fraction)
            mean = NearestMean(
                k, distances.shape[2], aggregation.aggregate, device, min(most, 2 * int(k.max(initial=1)))
            )
        allowed = reference_mask(content, part, query_index, columns)
        mean.add(distances, allowed)
        if burn_out is not None:
            burn_out.add(distances, allowed, columns)
    if mean is None:
        raise ValueError("reduce_query_block needs at least one part")
    return finish(mean, query_index, n_references)


def _tensor(values: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values
    return torch.from_numpy(np.require(values, requirements="W"))  # torch refuses read-only arrays


def finish(mean: NearestMean, query_index: np.ndarray, n_references: np.ndarray) -> np.ndarray:
    """Take the result of ``mean``, float32 (B, P), once every query has met the references it must.

    Raises:
        PatcheadError: one has met another number of them.
    """
    if (wrong := np.flatnonzero(mean.seen != n_references)).size:
        row = wrong[0]
        raise PatcheadError(
            f"image {query_index[row]} of the group met {mean.seen[row]} references, not {n_references[row]}: "
            "a block of references was lost or came twice. Nothing was scored; run the group again."
        )
    return mean.result().cpu().numpy()
