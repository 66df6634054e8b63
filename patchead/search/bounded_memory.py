"""What bound and refine, and the window rule, hold in memory, and how much of it at a time within a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from patchead.errors import PlanError
from patchead.scoring.memory_budget import GIGABYTE, SCORE_BYTES, Workload, matmul_bytes, usable_bytes
from patchead.scoring.precision import dtype_of
from patchead.search.alike import alike_bytes
from patchead.search.projection import COMPONENTS, GATHERED, ROWS
from patchead.search.window_memory import image_bytes

_STATE_BYTES = 40  # of a patch: its bound, its level, and what choosing the next ones takes
_PAIR_BYTES = 9  # of a patch and a reference in a search: the distance, a copy of it in another order, who is allowed
_CHOICE_BYTES = 40  # of the same in a projection: places, estimates and their order
_MOST_ROWS = 4096
_LEAST_ROWS = 32
_SCORED_BYTES = 9  # of a patch by the window rule: its score, a copy of it, and that it is exact
_WINDOW_BYTES = 12  # of a query and a reference, per thread: cosines, the maxima, and their copy


@dataclass(frozen=True)
class Portions:
    """Say how much is in hand at a time; no score depends on it."""

    queries: int
    """Images that are scored together."""
    rows: int
    """Patches that are searched together."""
    hold: bool
    """Whether all references are kept prepared."""
    block_images: int
    """References that are prepared at a time where they are not kept."""
    slab_bytes: int
    """Prepared vectors of the places that a window needs, at a time."""


def low_bytes(work: Workload) -> int:
    """Count the bytes of all references in a few components, float32."""
    return work.references * work.patches * COMPONENTS * SCORE_BYTES


def portions(work: Workload, queries: int, memory_bytes: int, threads: int) -> Portions:
    """Divide a budget for ``queries`` images against all references of ``work``.

    Raises:
        PlanError: it does not hold a few patches and one reference besides what all need.
    """
    usable = usable_bytes(memory_bytes, "row_stationary") - work.scratch_bytes - low_bytes(work)
    usable -= threads * (
        ROWS * (work.patches * SCORE_BYTES + work.references * _CHOICE_BYTES) + GATHERED * 3 * SCORE_BYTES
    )
    row = work.references * _PAIR_BYTES + 2 * work.vector_bytes // work.patches
    query = work.patches * _STATE_BYTES + work.references
    rows = min(_MOST_ROWS, usable // 4 // row)
    together = min(
        queries, usable // 4 // query, matmul_bytes(memory_bytes) // (threads * _WINDOW_BYTES * work.references)
    )
    rest = usable - rows * row - together * query
    vectors = work.vector_bytes - work.stored_bytes
    if rows < _LEAST_ROWS or together < 1 or rest < 2 * work.vector_bytes:
        raise PlanError(
            f"`memory_bytes` ({memory_bytes / GIGABYTE:.3g} GB) is too small for `schedule` bounded on a group of "
            f"{work.references} references of {work.patches} patches and {work.dim} dimensions. Set `schedule` to "
            "auto, or raise it."
        )
    held = work.references * vectors
    hold = held <= rest
    return Portions(together, rows, hold, max(1, rest // 2 // work.vector_bytes), rest - held if hold else rest // 2)


def fits(work: Workload, queries: int, memory_bytes: int, threads: int) -> bool:
    """Tell whether `portions` finds room."""
    try:
        portions(work, queries, memory_bytes, threads)
    except PlanError:
        return False
    return True


def window_portions(
    work: Workload, queries: int, memory_bytes: int, threads: int, *, radius: int, width: int, measured: int
) -> Portions:
    """Divide a budget for ``queries`` images against all references of ``work``, on a grid ``width`` wide.

    ``measured`` images that are no references tell whether parts lie alike; 0: the references do.

    Raises:
        PlanError: it does not hold one row of the grid of one image and of one reference, besides what all need.
    """
    least = sum(image_bytes(dtype_of(work.precision), work.dim, work.references, width, radius))
    fixed = work.scratch_bytes + work.images * work.patches * _SCORED_BYTES
    fixed += max(least, alike_bytes(work, radius, threads, measured))
    together = matmul_bytes(memory_bytes) // (threads * _WINDOW_BYTES * work.references)
    usable = usable_bytes(memory_bytes, "row_stationary")
    if together < 1 or usable < fixed:
        wanted = max(
            fixed * memory_bytes / usable,
            memory_bytes / matmul_bytes(memory_bytes) * threads * _WINDOW_BYTES * work.references,
        )
        raise PlanError(
            f"`memory_bytes` ({memory_bytes / GIGABYTE:.3g} GB) is too small for `window` {radius} on a group of "
            f"{work.references} references of {work.patches} patches and {work.dim} dimensions. "
            f"Set it to {wanted / GIGABYTE:.3g} GB or more, or `window` to off."
        )
    rest = usable - fixed + least
    held = work.references * work.vector_bytes  # a copy of the stored ones may be made of them
    hold = held + least <= rest
    return Portions(
        queries=min(queries, together),
        rows=1,  # a window searches no patches in all references
        hold=hold,
        block_images=1,
        slab_bytes=rest - held if hold else rest,
    )


def window_fits(work: Workload, memory_bytes: int, threads: int, radius: int) -> bool:
    """Tell whether `window_portions` finds room for a group that tells by itself whether its parts lie alike."""
    of = {"radius": radius, "width": math.isqrt(work.patches), "measured": 0}
    try:
        window_portions(work, work.images, memory_bytes, threads, **of)
    except PlanError:
        return False
    return True
