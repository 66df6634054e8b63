"""All nearest distances of a split once; every rate, aggregate, fraction and image score is read off them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from patchead.scoring.aggregate import Aggregation, image_scores, neighbours
from patchead.scoring.precision import prepare
from patchead.scoring.similarity import one_way, tile_self
from patchead.threads import over_threads

_BUDGET = 256 * 10**6  # bytes of the similarity matrices at any moment


def strip(embeddings: np.ndarray, precision: str = "fp32") -> np.ndarray:
    """float32 (N, N, P): distance of each patch of image i to the nearest patch of image j; 0 for i = j.

    Args:
        embeddings: float16 (N, P, D).
        precision: of the scores, as in `patchead.scoring.precision.prepare`.
    """
    return tile_self(prepare(embeddings, precision=precision), budget_bytes=_BUDGET).numpy()


def strip_to(queries: np.ndarray, references: np.ndarray, precision: str = "fp32") -> np.ndarray:
    """float32 (N, M, P): distance of each patch of the queries (N, P, D) to the nearest patch of reference j of M."""
    a, b = prepare(queries, precision=precision), prepare(references, precision=precision)
    return one_way(a, b, budget_bytes=_BUDGET).numpy()


@dataclass(frozen=True)
class Sorted:
    """Leave-one-out distances of each patch in ascending order: float32 (n, P, n - 1)."""

    distances: np.ndarray

    @classmethod
    def of(cls, strip: np.ndarray, chosen: np.ndarray) -> Sorted:
        """Of the group of images at ``chosen`` (n,) alone: the rows and columns of all others are left out."""
        out = np.empty((len(chosen), strip.shape[2], len(chosen) - 1), np.float32)

        def order(row: int) -> None:
            out[row] = strip[chosen[row]][np.delete(chosen, row)].T
            out[row].sort(axis=-1)

        over_threads(order, range(len(chosen)), torch.device("cpu"))
        return cls(out)

    def patch_scores(self, aggregate: str, fraction: float) -> np.ndarray:
        """float32 (n, P): mean of the K nearest or farthest references (method.md §3)."""
        references = self.distances.shape[-1]
        k = int(neighbours(references, fraction))
        cut = slice(k) if aggregate == "nearest" else slice(references - k, None)
        return self.distances[:, :, cut].mean(axis=-1)


def scored(ordered: Sorted, rules: tuple[Aggregation, ...]) -> Iterator[tuple[Aggregation, np.ndarray]]:
    """Image scores float64 (n,) by each aggregation."""
    patches: dict[tuple[str, float], np.ndarray] = {}
    for aggregation in rules:
        key = (aggregation.aggregate, aggregation.fraction)
        if key not in patches:
            patches[key] = ordered.patch_scores(*key)
        yield aggregation, image_scores(patches[key], aggregation.image_top_fraction)
