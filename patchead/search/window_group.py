"""The scores of a group by the window rule, where its parts lie alike (method.md §11)."""

from __future__ import annotations

import numpy as np
import torch

from patchead.errors import PlanError, SettingsError, bad_argument
from patchead.search.alike import Alike, measure_alike
from patchead.search.bounded import window_bounds
from patchead.search.bounded_group import (
    RADIUS,
    BoundedScores,
    Comparison,
    in_parts,
    pairs_of,
    search_of,
    window_share,
    workload_of,
)
from patchead.search.bounded_memory import Portions, window_portions
from patchead.threads import threads_of

ALIKE = 0.88
"""`Alike.share` from which on parts lie alike: photos of cells have 0.92 to 0.99, the same shifted by up to six patches
0.67 to 0.71, textures cropped and turned 0.70 to 0.84 (`jobs/benchmark.py alike --full`)."""


def score_by_window(compared: Comparison, *, anyway: bool = False) -> BoundedScores | Alike:
    """Score images by the window rule (method.md §11); where it is ``auto`` and they do not lie alike, tell how far.

    Args:
        compared: who is compared with whom.
        anyway: do not refuse a group that does not lie alike.

    Raises:
        SettingsError: the group does not lie alike within the window that was asked for, and was not aligned.
        PlanError: the budget is too small.
        PatcheadError: an embedding is zero, infinite or NaN.
    """
    asked = compared.aggregation.window
    radius = RADIUS if asked in ("auto", None) else int(asked)
    try:
        sizes = _sizes(compared, radius)
    except PlanError:
        if asked == "auto":
            return Alike(0.0, np.inf)
        raise
    search = search_of(compared, sizes)
    lies = measure_alike(search, compared.grid, radius, compared.measured)
    if lies.share < ALIKE and asked == "auto":
        return lies
    known = bool(np.isfinite(lies.offset))  # else no two images can be compared: there is nothing to refuse by
    if known and lies.share < ALIKE and compared.grid.views == 1 and not anyway:
        raise SettingsError(_not_alike(compared, radius, lies))
    scores = np.concatenate(
        [
            window_bounds(some, compared.grid, radius, slab_bytes=sizes.slab_bytes, bound=False)
            for _, some in in_parts(search, sizes)
        ]
    )
    facts = {
        "generator": f"window rule r={radius}",
        **lies.facts,
        "searched": 1.0,
        "multiplications": window_share(compared.grid, radius, search.vectors.patches)
        + lies.multiplied / pairs_of(compared),
    }
    return BoundedScores(scores, np.ones(scores.shape, bool), facts)


def _not_alike(compared: Comparison, radius: int, lies: Alike) -> str:
    batch = compared.measured is None
    whom, align = ("this group", ", or align them") if batch else ("this group and its references", "")
    remedy = (
        f"In {whom} the nearest match of a patch lies {lies.offset:.3g} cells from its own place (median), and "
        f"places within {radius} of it are only {lies.share:.0%} of the way as near, less than {ALIKE:.0%}: parts "
        f"do not lie alike. Use off or auto{align}."
    )
    return bad_argument("window", compared.aggregation.window, "wide enough for how the group's parts lie", remedy)


def lies_alike(compared: Comparison, radius: int) -> Alike:
    """Measure whether a group's parts lie alike within ``radius`` cells. Raises as `score_by_window`."""
    search = search_of(compared, _sizes(compared, radius))
    return measure_alike(search, compared.grid, radius, compared.measured)


def _sizes(compared: Comparison, radius: int) -> Portions:
    return window_portions(
        workload_of(compared),
        len(compared.queries),
        compared.memory_bytes,
        threads_of(torch.device(compared.device)),
        radius=radius,
        width=compared.grid.w,
        measured=0 if compared.measured is None else len(compared.measured),
    )
