"""The image scores of a group by bound and refine: bounds from where they are cheapest (method.md §10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from patchead.batches import slices
from patchead.scoring.aggregate import Aggregation, neighbours
from patchead.scoring.memory_budget import Workload, matmul_bytes
from patchead.scoring.precision import dtype_of
from patchead.search.alike import Alike, evenly
from patchead.search.bound_choice import (
    COSTS_MORE,
    FULL,
    MOST_SHOWN,
    NO_MEMORY,
    PROJECTION,
    TOO_FEW_TO_TRY,
    WINDOW,
    Sampled,
    affordable,
    sample,
)
from patchead.search.bounded import EXACT, Bounded, Search, refine, window_bounds
from patchead.search.bounded_memory import Portions, fits, portions
from patchead.search.goals import Goal
from patchead.search.grid import Grid
from patchead.search.group_vectors import Blocks, GroupVectors
from patchead.search.projection import COMPONENTS, Projection, share_of_components
from patchead.threads import threads_of

RADIUS = 1
"""Of the window that bounds: nine places; a larger one costs more than it saves."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold who is compared with whom.

    ``blocks`` hold the stored embeddings of all images concerned; ``queries`` int64 (B,) and ``references`` int64 (R,)
    are positions in the group, ascending; ``n_references`` int (B,); ``content`` and ``part`` int64 (N,), of the group.
    """

    blocks: Blocks
    queries: np.ndarray
    references: np.ndarray
    content: np.ndarray
    part: np.ndarray
    n_references: np.ndarray
    aggregation: Aggregation
    device: str
    precision: str
    memory_bytes: int
    grid: Grid
    measured: np.ndarray | None = None
    """Positions of the images, in some block, that tell whether parts lie alike; None: the references do."""


@dataclass(frozen=True)
class BoundedScores:
    """Hold patch scores float32 (B, P), which of them are exact, bool (B, P), and how they were found."""

    patch_scores: np.ndarray
    exact: np.ndarray
    facts: dict[str, Any]
    """generator, images_sampled, offset, alike; searched, projected: shares of the patches; multiplications:
    dot products done over those of all pairs, N · R · P². One in components counts by their share of D, a window as if
    each direction was multiplied for itself; principal components and what is searched afterwards are not counted."""

    @property
    def exact_images(self) -> np.ndarray:
        """Tell which images have no upper bound among their patch scores: bool (B,)."""
        return np.asarray(self.exact.all(axis=1))

    def after(self, alike: Alike, compared: Comparison) -> BoundedScores:
        """Add what was measured before for a window."""
        multiplied = self.facts["multiplications"] + alike.multiplied / pairs_of(compared)
        measured = {name: value for name, value in alike.facts.items() if value is not None}
        return replace(self, facts={**self.facts, **measured, "multiplications": multiplied})


@dataclass(frozen=True)
class SearchedFully:
    """Say that the group is to be searched fully, and why; ``tried`` is what a sample has multiplied until then."""

    reason: str
    tried: float = 0.0
    alike: Alike | None = None
    """What was measured for a window."""

    def after(self, alike: Alike, compared: Comparison) -> SearchedFully:
        """Add what was measured before for a window."""
        return replace(self, alike=alike, tried=self.tried + alike.multiplied / pairs_of(compared))

    def facts(self, *, symmetric: bool) -> dict[str, Any]:
        """Collect what `BoundedScores.facts` says of other searches; ``symmetric``: each pair is multiplied once."""
        multiplied = _full(symmetric=symmetric) + self.tried
        measured = {} if self.alike is None else self.alike.facts
        return {"generator": f"{FULL}: {self.reason}", "searched": 1.0, "multiplications": multiplied, **measured}


def score_bounded(
    compared: Comparison,
    goal: Goal,
    *,
    symmetric: bool,
    generator: str | None = None,
    shown: float = 0.0,
    asked: bool = True,
) -> BoundedScores | SearchedFully:
    """Score images by bound and refine, unless the full search costs less.

    Args:
        compared: who is compared with whom.
        goal: what must be exact; of all B queries.
        symmetric: whether the full search would multiply each pair of images once only.
        generator: where bounds come from, `bound_choice.WINDOW` or `PROJECTION`; default: what costs least, as a
            sample of the group tells.
        shown: share of the images that are searched fully afterwards as they are shown: their cost is counted too.
        asked: whether bounds were asked for; where they were not, what the sample costs is bounded.

    Raises:
        PlanError: the budget is too small, and bounds were asked for.
        PatcheadError: an embedding is zero, infinite or NaN.
    """
    if shown >= _full(symmetric=symmetric):
        return SearchedFully(MOST_SHOWN)
    if not asked and not _fits(compared):
        return SearchedFully(NO_MEMORY)
    sizes = _sizes(compared)
    sampled = _sampled(compared, symmetric=symmetric, bounded=not asked)
    if sampled is None:
        return SearchedFully(TOO_FEW_TO_TRY)
    chosen = generator or sampled.cheapest(shown)
    if chosen == FULL:
        return SearchedFully(COSTS_MORE, sampled.multiplied / pairs_of(compared))
    search, parts = search_of(compared, sizes), []
    projection = Projection(search.vectors, COMPONENTS, sizes.block_images)
    for cut, some in in_parts(search, sizes):
        bounds = None
        if chosen == WINDOW:
            bounds = window_bounds(some, compared.grid, RADIUS, slab_bytes=sizes.slab_bytes, bound=True)
        parts.append(refine(some, bounds, projection, goal.of(cut)))
    found = _together(parts, chosen, sampled, search)
    near = window_share(compared.grid, RADIUS, search.vectors.patches) if chosen == WINDOW else 0.0
    found.facts["multiplications"] += near + sampled.multiplied / pairs_of(compared)
    return found


def _sampled(compared: Comparison, *, symmetric: bool, bounded: bool) -> Sampled | None:
    """What a sample of the group tells; None where it would cost too much and its cost is ``bounded``."""
    full, queries = _full(symmetric=symmetric), np.arange(len(compared.queries))
    picked, references = evenly(queries), evenly(compared.references)
    if bounded:
        asked, taken = affordable(len(queries), len(compared.references), full, dtype_of(compared.precision))
        if not asked:
            return None
        picked, references = evenly(queries, asked, asked), evenly(compared.references, taken, taken)
    of = compared.n_references[picked]
    some = replace(compared, queries=compared.queries[picked], references=references, n_references=of)
    k = neighbours(compared.n_references, compared.aggregation.fraction)
    return sampled_of(some, full=full, nearest=float(k.max(initial=1)) / max(1, len(compared.references)))


def sampled_of(some: Comparison, *, full: float, nearest: float) -> Sampled:
    """Search some images of a group, which stand for it; see `bound_choice.sample`. Raises as `score_bounded`."""
    sizes = _sizes(some)
    search = search_of(some, sizes)
    projection = Projection(search.vectors, COMPONENTS, sizes.block_images)
    return sample(search, some.grid, RADIUS, projection, full=full, nearest=nearest)


def pairs_of(compared: Comparison) -> int:
    """Count the pairs of a query and a reference."""
    return max(1, len(compared.queries) * len(compared.references))


def _full(*, symmetric: bool) -> float:
    """What the full search costs, in units of all pairs."""
    return 0.5 if symmetric else 1.0


def window_share(grid: Grid, radius: int, patches: int) -> float:
    """Count the pairs of places within a window, as a share of all."""
    return sum(len(grid.near(place, radius)) for place in range(patches)) / patches**2


def in_parts(search: Search, sizes: Portions) -> Iterator[tuple[slice, Search]]:
    """Yield the search, some queries at a time, and which of them."""
    for cut in slices(len(search.queries), sizes.queries):
        yield cut, replace(search, queries=search.queries[cut], n_references=search.n_references[cut])


def workload_of(compared: Comparison) -> Workload:
    """Describe the comparison for `scoring.memory_budget`."""
    _, p, d = compared.blocks[0][1].shape
    return Workload(
        images=len(compared.queries),
        patches=p,
        dim=d,
        references=len(compared.references),
        precision=compared.precision,
        fraction=compared.aggregation.fraction,
    )


def _sizes(compared: Comparison) -> Portions:
    return portions(*_budget(compared))


def _fits(compared: Comparison) -> bool:
    """Whether the budget is enough for bounds."""
    return fits(*_budget(compared))


def _budget(compared: Comparison) -> tuple[Workload, int, int, int]:
    threads = threads_of(torch.device(compared.device))
    return workload_of(compared), len(compared.queries), compared.memory_bytes, threads


def search_of(compared: Comparison, sizes: Portions) -> Search:
    """Prepare the search of a comparison, so much of it at a time."""
    vectors = GroupVectors(
        compared.blocks,
        compared.references,
        device=compared.device,
        precision=compared.precision,
        hold=sizes.hold,
    )
    return Search(
        vectors=vectors,
        queries=compared.queries,
        content=compared.content,
        part=compared.part,
        n_references=compared.n_references,
        aggregation=compared.aggregation,
        matmul_bytes=matmul_bytes(compared.memory_bytes),
        block_images=sizes.block_images,
        rows=sizes.rows,
    )


def _together(parts: list[Bounded], generator: str, sampled: Sampled, search: Search) -> BoundedScores:
    scores, level = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "level"))
    vectors = search.vectors
    searched = float((level == EXACT).mean())
    projected = 1.0 if generator == PROJECTION else float((level != 0).mean())
    references = len(vectors.references)
    chosen = int(search.k.max(initial=1)) if search.aggregation.aggregate == "nearest" else references
    low = share_of_components(vectors.dim) + chosen / (references * vectors.patches)  # the nearest one found is whole
    facts = {
        "generator": generator,
        "images_sampled": sampled.images,
        "offset": sampled.offset,
        "alike": sampled.alike,
        "searched": searched,
        "projected": projected,
        "multiplications": searched + projected * low,
    }
    return BoundedScores(scores, level == EXACT, facts)
