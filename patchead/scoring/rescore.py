"""Some images of a group are searched for themselves: those of a repeat without each other (method.md §9.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from patchead.batches import slices
from patchead.scoring.aggregate import Aggregation, count_references, neighbours
from patchead.scoring.burn_out import BurnOut, Evidence
from patchead.scoring.memory_budget import Workload
from patchead.scoring.query_block import score_query_block
from patchead.scoring.repeats import Repeat, find_repeats, parts_and_repeats, repeat_groups

Load = Callable[[np.ndarray], np.ndarray]
"""Gives the embeddings float16 (n, P, D) of images by their positions in the group."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Hold who is compared with whom in a group, and how: the arguments of `score_query_block`."""

    content: np.ndarray
    part: np.ndarray
    references: np.ndarray
    """int64 (R,), positions of all images that may be references."""
    aggregation: Aggregation
    device: str
    precision: str
    memory_bytes: int
    grid: tuple[int, int]
    """(h, w) of one view's patches."""

    def burn_out(self, rows: np.ndarray, n_patches: int, n_references: np.ndarray) -> BurnOut | None:
        """Make the test of the images at ``rows``, which is fed with their distances; None where none is wanted.

        Args:
            rows: int (B,), positions in the group.
            n_patches: P.
            n_references: int (N,), of the whole group.
        """
        if not self.aggregation.finds_repeats:
            return None
        most = int(n_references.max(initial=1))
        k = int(neighbours(most, self.aggregation.fraction))
        return BurnOut(len(rows), n_patches, len(self.content), most, k, self.device)


@dataclass(frozen=True)
class Rescored:
    """Hold the scores of N images after those of repeats were scored again."""

    patch_scores: np.ndarray
    """float32 (N, P)."""
    n_references: np.ndarray
    """int32 (N,)."""
    repeats: list[Repeat]

    @property
    def repeat_groups(self) -> np.ndarray:
        """Number the repeat of each image from 1: int32 (N,), 0 for none."""
        return repeat_groups(self.repeats, len(self.n_references))


def rescore(
    patch_scores: np.ndarray, n_references: np.ndarray, evidence: list[Evidence], compared: Compared, load: Load
) -> Rescored:
    """Find the repeats of a group and score their images again; all other scores are as they were.

    An image that would have no reference left keeps its score.

    Args:
        patch_scores: float32 (N, P); it is not changed.
        n_references: int32 (N,).
        evidence: of all images, in blocks, in their order.
        compared: who is compared with whom, and how.
        load: gives embeddings; a block of queries and one of references are held at a time.

    Raises:
        As `score_query_block`.
    """
    repeats = find_repeats(Evidence.joined(evidence), patch_scores, compared.grid) if evidence else []
    if not repeats:
        return Rescored(patch_scores, n_references, [])
    part = parts_and_repeats(compared.part, repeat_groups(repeats, len(n_references)))
    fewer = count_references(compared.content, part, compared.references)
    again = np.flatnonzero((part[:, 1] >= 0) & (fewer > 0))
    scores, counts = patch_scores.copy(), n_references.copy()
    counts[again] = fewer[again]
    for cut, found in search_images(again, fewer[again], replace(compared, part=part), load):
        scores[again[cut]] = found
    return Rescored(scores, counts, repeats)


def search_images(
    images: np.ndarray, n_references: np.ndarray, compared: Compared, load: Load
) -> Iterator[tuple[slice, np.ndarray]]:
    """Search all patches of all references for some images of a group: a slice of them, patch scores float32 (n, P).

    Args:
        images: int64 (B,), positions in the group.
        n_references: int (B,), of these images.
        compared: who is compared with whom, and how.
        load: gives embeddings; a block of queries and one of references are held at a time.

    Raises:
        As `score_query_block`.
    """
    if not len(images):
        return
    first = load(images[:1])
    work = Workload(
        images=len(compared.content),
        patches=first.shape[1],
        dim=first.shape[2],
        references=len(compared.references),
        precision=compared.precision,
        fraction=compared.aggregation.fraction,
    )
    size = work.block_images(compared.memory_bytes, "row_stationary")
    columns = [compared.references[cut] for cut in slices(len(compared.references), size)]
    for cut in slices(len(images), size):
        rows = images[cut]
        yield (
            cut,
            score_query_block(
                load(rows),
                rows,
                ((column, load(column)) for column in columns),
                compared.content,
                compared.part,
                aggregation=compared.aggregation,
                device=compared.device,
                precision=compared.precision,
                memory_bytes=compared.memory_bytes,
                n_references=n_references[cut],
            ),
        )
