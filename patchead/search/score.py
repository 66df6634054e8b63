"""The scores of a group by any schedule: the full search, bound and refine where that costs less, the window rule."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

import numpy as np

from patchead.errors import SettingsError
from patchead.scoring import leave_one_out
from patchead.scoring.aggregate import Aggregation, count_references, image_scores
from patchead.scoring.leave_one_out import GroupScores
from patchead.scoring.memory_budget import Workload
from patchead.search.bound_choice import refused_on
from patchead.search.bounded_group import BoundedScores, Comparison, SearchedFully, score_bounded
from patchead.search.goals import Goal, TopPatches
from patchead.search.grid import Grid
from patchead.search.group_vectors import Blocks
from patchead.search.window_group import score_by_window

BOUNDED = "bounded"
WINDOWED = "window"


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
    grid: tuple[int, int] | None = None,
    goal: Goal | None = None,
    shown: float | None = None,
    measured: np.ndarray | None = None,
) -> GroupScores:
    """Score a whole group in this process, as `leave_one_out.score_group`, or with schedule ``bounded``.

    ``bounded`` gives the same image scores and largest patches, up to rounding; other patch scores may be upper bounds
    (method.md §10). Where a sample of the group shows that bounds cost more than they save, it is searched fully.

    Args:
        embeddings, content, part, aggregation, device, precision, memory_bytes, panel, queries: see
            `leave_one_out.score_group`.
        schedule: ``bounded``, or one of the full search.
        grid: (h, w) of a view's patches; default: a square.
        goal: what ``bounded`` must find exactly; default: image scores and largest patches.
        shown: share of the images whose every patch is wanted afterwards, which is counted where bounds are. With it,
            the full search gives way to ``bounded`` where a sample of the group, of a twentieth of its cost at most,
            shows that this costs less.
        measured: int64 (s,), positions of the images that tell, compared with references, whether parts lie alike, as
            `alike.night_sample` chooses them where references are not of the night. None: the references do.

    Raises:
        As `leave_one_out.score_group`; SettingsError: a window for a group that does not lie alike; or repeats, with a
            window or ``bounded``, or the position level, with a window auto or ``bounded``: they need every patch.
    """
    n, p, d = embeddings.shape
    part = np.full(n, -1, np.int64) if part is None else part
    windowed, bounded = aggregation.window is not None, schedule == BOUNDED or aggregation.window == "auto"
    tried = shown is not None and schedule not in (BOUNDED, WINDOWED)
    why = SearchedFully(aggregation.why_every_patch) if tried and aggregation.why_every_patch else None
    tried = tried and why is None
    if aggregation.repeats and (windowed or bounded):
        what = "window" if windowed else "schedule"
        raise SettingsError(f"`{what}` and `repeats` cannot be combined: repeats are looked for in the full search.")
    if aggregation.position_level and bounded:
        what = "window auto" if windowed else "schedule"
        raise SettingsError(f"`{what}` and `position_level` cannot be combined: it needs the score of every patch.")
    if windowed or bounded or tried:
        compared = Comparison(
            blocks=[(np.arange(n), embeddings)],
            queries=np.arange(n if queries is None else queries),
            references=np.arange(n) if panel is None else panel,
            content=content,
            part=part,
            n_references=count_references(content, part, panel)[:queries],
            aggregation=aggregation,
            device=device,
            precision=precision,
            memory_bytes=memory_bytes,
            grid=Grid.of(grid or _square(p), p),
            measured=measured,
        )
        whole = Workload(images=n, patches=p, dim=d, references=n, precision=precision, fraction=aggregation.fraction)
        full = schedule if tried else "auto"
        symmetric = panel is None and queries is None and whole.choose_schedule(memory_bytes, full) == "symmetric"
        goal = goal or TopPatches(aggregation.image_top_fraction)
        found = _found(compared, goal, symmetric=symmetric, shown=shown or 0.0, asked=not tried)
        if isinstance(found, BoundedScores):
            scores = image_scores(found.patch_scores, aggregation.image_top_fraction)
            return GroupScores(found.patch_scores, scores, compared.n_references, exact=found.exact, search=found.facts)
        why, aggregation = found, replace(aggregation, window=None)
    schedule = "auto" if schedule in (BOUNDED, WINDOWED) else schedule
    done = leave_one_out.score_group(
        embeddings,
        content,
        part,
        aggregation=aggregation,
        device=device,
        precision=precision,
        schedule=schedule,
        memory_bytes=memory_bytes,
        panel=panel,
        queries=queries,
        grid=grid,
    )
    if why is None:
        return done
    return replace(done, search=why.facts(symmetric=done.search["multiplications"] < 1))


def score_query_block(
    index: np.ndarray,
    blocks: Blocks,
    references: np.ndarray,
    content: np.ndarray,
    part: np.ndarray,
    *,
    aggregation: Aggregation,
    n_references: np.ndarray,
    device: str,
    precision: str,
    memory_bytes: int,
    grid: tuple[int, int],
    goal: Goal,
    shown: float = 0.0,
    asked: bool = True,
    measured: np.ndarray | None = None,
) -> BoundedScores | SearchedFully:
    """Score a block of images with schedule ``bounded`` or by a window, unless the full search costs less.

    Args:
        index: int64 (B,), positions of the images in the group.
        blocks: the embeddings of these images, of the measured and of all references, in any blocks; held as they are.
        references: int64 (R,), positions of the references.
        content, part: int64 (N,), of the whole group.
        aggregation, device, precision, memory_bytes, grid, goal, measured: see `score_group`.
        n_references: int (B,), of these images.
        shown, asked: see `bounded_group.score_bounded`; a window auto asks for no bounds.

    Raises:
        As `score_group`.
    """
    compared = Comparison(
        blocks=blocks,
        queries=index,
        references=references,
        content=content,
        part=part,
        n_references=n_references,
        aggregation=aggregation,
        device=device,
        precision=precision,
        memory_bytes=memory_bytes,
        grid=Grid.of(grid, blocks[0][1].shape[1]),
        measured=measured,
    )
    return _found(compared, goal, symmetric=False, shown=shown, asked=asked)


def _found(
    compared: Comparison, goal: Goal, *, symmetric: bool, shown: float, asked: bool
) -> BoundedScores | SearchedFully:
    """Scores by the window rule, else by bound and refine; or why the full search is to be done."""
    window = compared.aggregation.window
    told = None if window is None else score_by_window(compared)
    if isinstance(told, BoundedScores):
        return told
    asked = asked and window is None
    if refused := refused_on(compared.device, asked=asked):
        found: BoundedScores | SearchedFully = SearchedFully(refused)
    else:
        found = score_bounded(compared, goal, symmetric=symmetric, shown=shown, asked=asked)
    return found if told is None else found.after(told, compared)


def _square(patches: int) -> tuple[int, int]:
    """(h, w) of a grid that nobody has named: a square, or one row."""
    side = isqrt(patches)
    return (side, side) if side * side == patches else (1, patches)
