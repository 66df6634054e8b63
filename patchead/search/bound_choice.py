"""Where a group's bounds come from: a full search among a few of its images tells what each way would cost.

method.md §10. The same sample tells whether parts lie alike, which is what the window rule of method.md §11 asks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from patchead.scoring.aggregate import neighbours, reference_mask, top_count
from patchead.search.alike import SAMPLED, Pairs, compared_pairs
from patchead.search.bounded import Search
from patchead.search.grid import Grid
from patchead.search.nearest_rows import cosines_to_distances_, mean_of_nearest
from patchead.search.projection import COMPONENTS, Projection, share_of_components

MOST_SHOWN = "most images are shown"
COSTS_MORE = "bounds cost more"
TOO_FEW_TO_TRY = "too few images to try"
NO_MEMORY = "memory_gb is too small for bounds"
"""Why a group is searched fully (`verdicts.search`)."""

FULL = "full"
WINDOW = "window"
PROJECTION = "projection"

# Times as slow as their share of the work (AMD EPYC, 224 and 448 px): a window does two directions at once, a
# projection writes more than it multiplies.
_OF_WINDOW, _OF_PROJECTION = 0.7, 3.0
_FAST = 3.0  # times the speed of fp32 that another arithmetic is presumed to have; components are float32
_GATHER = 16.0  # dot products of rows in their order that one with a gathered row costs
_PAIR = 3.0  # times the cost of a pair in the full search that one of the sample costs
_TRY = 0.05  # of the full search's cost that a sample may take where nobody asked for bounds
_WORTH = 0.9  # of the full search's cost, above which bounds are not
SPEED_ON_A_GPU = 0.118
"""Of bound and refine, the symmetric full search being 1: an H100, fp16 (`jobs/benchmark.py gpu --full`). Its small
steps keep a GPU waiting."""


@dataclass(frozen=True)
class Sampled:
    """Hold what the sample showed. Costs are in units of all patch pairs, B · P by R · P."""

    images: int
    multiplied: float
    """Dot products of the sample, of whole vectors and as a share of one in components, over P²: pairs of images."""
    offset: float
    """Median Chebyshev distance in patches from a patch to its nearest match in another image."""
    alike: float
    """See `Alike.share`, of the window that bounds."""
    cost: dict[str, float]
    """Predicted for `WINDOW` and `PROJECTION`; `FULL` is what it is measured against."""
    searched: dict[str, float]
    """Predicted share of patches that need the full search."""

    def cheapest(self, besides: float = 0.0) -> str:
        """Choose where the bounds come from, or the full search where they, and what is done ``besides``, cost more."""
        best = min((WINDOW, PROJECTION), key=self.cost.__getitem__)
        return best if self.cost[best] + besides < _WORTH * self.cost[FULL] else FULL


def pays_on(device: str) -> bool:
    """Tell whether bound and refine may take less time than the full search on a torch device."""
    return device.partition(":")[0] == "cpu"


def refused_on(device: str, *, asked: bool) -> str:
    """Say why bounds are not even tried on a device where schedule ``bounded`` was not ``asked`` for; empty: they are.

    A window ``auto`` asks for none: it leaves a group that does not lie alike to whatever search is the fastest.
    """
    return "" if asked or pays_on(device) else "on a GPU bounds take longer"


def warning_on(device: str, schedule: str, window: int | str | None) -> str | None:
    """Say by how much schedule ``bounded`` is slower than the full search where it was asked for; None where it pays.

    With a window a group is searched by it, and fully on a GPU where it does not lie alike.
    """
    if pays_on(device) or schedule != "bounded" or window is not None:
        return None
    return (
        f"`schedule` bounded takes {1 / SPEED_ON_A_GPU:.2g} times as long as the full search on a GPU (measured on an "
        "H100); set `schedule` to auto."
    )


def affordable(queries: int, references: int, full: float, dtype: torch.dtype) -> tuple[int, int]:
    """Count the queries and references whose search costs no more than `_TRY` of the group's full search; (0, 0): none.

    Args:
        queries, references: of the group.
        full: what its full search costs, in units of all pairs.
        dtype: of the prepared vectors.
    """
    pairs = _TRY * full * queries * references / (_PAIR if dtype == torch.float32 else _PAIR * _FAST)
    least = min(SAMPLED[0], references)
    taken = max(least, min(SAMPLED[1], references, int(pairs**0.5)))
    asked = min(SAMPLED[1], queries, int(pairs / taken))
    return (asked, taken) if asked >= SAMPLED[0] else (0, 0)


def sample(search: Search, grid: Grid, radius: int, projection: Projection, *, full: float, nearest: float) -> Sampled:
    """Search a few images of a group fully, with both bounds at hand.

    Args:
        search: of these images alone, as queries and as references.
        grid: of their patches.
        radius: of the window.
        projection: of these references.
        full: what the full search of the group costs, in units of all pairs: a half where each is multiplied once.
        nearest: the share of the group's references that are averaged over.
    """
    queries, references = search.queries, search.vectors.references
    allowed = reference_mask(search.content, search.part, queries, references)
    found = Pairs.of(search, projection, grid, radius, queries, references)
    k = neighbours(allowed.sum(axis=1), search.aggregation.fraction)
    kept = np.flatnonzero(allowed.any(axis=1)).tolist()
    shares = {WINDOW: [0.0], PROJECTION: [0.0]}
    loose, m = [0.0], top_count(search.vectors.patches, search.aggregation.image_top_fraction)

    def scores(cosines: np.ndarray, image: int) -> np.ndarray:
        distances = cosines_to_distances_(torch.from_numpy(cosines[image].copy()), search.vectors.step)
        allowed_here = np.broadcast_to(allowed[image], distances.shape)
        return mean_of_nearest(
            distances, allowed_here, np.repeat(k[image], len(distances)), search.aggregation.aggregate
        )

    for image in kept:
        exact, window, projected = (scores(of, image) for of in (found.full, found.window, found.projected))
        enough = np.partition(exact, len(exact) - m)[len(exact) - m]
        loose.append(float((window >= enough).mean()))
        shares[WINDOW].append(float((np.minimum(window, projected) >= enough).mean()))
        shares[PROJECTION].append(float((projected >= enough).mean()))
    searched = {name: float(np.mean(found[1:] or found)) for name, found in shares.items()}
    lies = found.alike(allowed)
    low = share_of_components(search.vectors.dim)
    return Sampled(
        images=len(queries),
        multiplied=len(compared_pairs(queries, references, search.vectors.patches))
        + low * len(queries) * len(references),
        offset=lies.offset if len(kept) else 0.0,
        alike=lies.share,
        cost=_costs(search, radius, float(np.mean(loose[1:] or loose)), searched, full=full, nearest=nearest),
        searched=searched,
    )


def _costs(
    search: Search, radius: int, loose: float, searched: dict[str, float], *, full: float, nearest: float
) -> dict[str, float]:
    vectors = search.vectors
    fast = 1.0 if vectors.dtype == torch.float32 else _FAST
    chosen = nearest if search.aggregation.aggregate == "nearest" else 1.0
    projecting = _OF_PROJECTION * fast * (COMPONENTS / vectors.dim + chosen * _GATHER / vectors.patches)
    window = _OF_WINDOW * (2 * radius + 1) ** 2 / vectors.patches
    return {
        FULL: full,
        WINDOW: window + loose * projecting + searched[WINDOW],
        PROJECTION: projecting + searched[PROJECTION],
    }
