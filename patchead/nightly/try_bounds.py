"""Groups that could be cut into tiles are tried before they are planned: does bound and refine cost less there?

A group that one actor holds, and a block of queries, is tried by the actor that has it. A tile sees two blocks of
images and could not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from patchead.errors import PlanError
from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.group import Group, load
from patchead.nightly.score_spec import ScoreSettings
from patchead.plan.group_plan import Limits, workload
from patchead.plan.planned import GroupPlan, Plan
from patchead.runtime.executor import RunTasks
from patchead.scoring.aggregate import neighbours
from patchead.scoring.memory_budget import Workload
from patchead.scoring.precision import dtype_of
from patchead.search.alike import evenly, reference_sample
from patchead.search.bound_choice import FULL, affordable, pays_on
from patchead.search.bounded_group import RADIUS, Comparison, sampled_of
from patchead.search.bounded_memory import fits
from patchead.search.grid import Grid
from patchead.search.score import BOUNDED
from patchead.search.window_group import ALIKE, lies_alike
from patchead.threads import on_one_core

_SYMMETRIC = 0.5


def with_bounds(
    plan: Plan,
    make: Callable[[Limits], Plan],
    limits: Limits,
    groups: Mapping[str, pa.Table],
    store: EmbeddingStore,
    settings: ScoreSettings,
    run_tasks: RunTasks,
    *,
    device: str,
) -> Plan:
    """Plan groups by bound and refine that would be cut into tiles and cost less by it (method.md §10).

    Where bounds or a window auto were asked for and tiles cost less, the group is planned in tiles: each block of it
    would search fully by itself what a tile does for two.

    Args:
        plan: by counts alone.
        make: plans again.
        limits: of the plan.
        groups: columns of the manifest and the receipts by group id.
        store: of the embeddings; a few images of each group are read.
        settings: of the scores.
        run_tasks: what runs a function on many items.
        device: where the scores are computed; on a GPU bounds take longer than the full search, and only a window auto
            is tried.

    Raises:
        PatcheadError: embeddings cannot be read.
    """

    tried = [group for group in plan.scored if could_be_tiled(group, plan, limits, device)]
    items = (
        (Group.of(group.group_id, groups[group.group_id]), group.shown, _fit(group, plan, limits, device))
        for group in tried
    )
    pays = dict(run_tasks(partial(_pays, store=store, settings=settings), items)) if tried else {}
    paying, others = ({tried[at].group_id for at, found in pays.items() if found == of} for of in (True, False))
    as_planned = paying == {group.group_id for group in tried if group.schedule == BOUNDED}
    return plan if as_planned else make(replace(limits, bounded=frozenset(paying), full=frozenset(others)))


def could_be_tiled(group: GroupPlan, plan: Plan, limits: Limits, device: str) -> bool:
    """Tell whether a group in pieces is tried: bounds, or a window, may cost less than its tiles, or more."""
    if group.schedule != BOUNDED:
        return group.in_tiles and group.shown is not None and _fit(group, plan, limits, device)
    if group.whole or group.prompts or group.references != group.images:
        return False
    wanted = pays_on(device) or limits.window is not None  # on a GPU, bounds are had only by who asks for them
    return wanted and _work(group, plan, limits).choose_schedule(limits.memory_bytes) == "symmetric"


def _work(group: GroupPlan, plan: Plan, limits: Limits) -> Workload:
    return workload(group.images, group.references, plan.n_patches, plan.dim, limits)


def _fit(group: GroupPlan, plan: Plan, limits: Limits, device: str) -> bool:
    """Whether bounds may pay at all, and can be held."""
    return pays_on(device) and fits(_work(group, plan, limits), group.images, limits.memory_bytes, limits.threads)


def _pays(tried: tuple[Group, float | None, bool], *, store: EmbeddingStore, settings: ScoreSettings) -> bool:
    """Whether a window, or bounds if they ``fit``, cost less in one group than its tiles, by a few of its images.

    A share of the group is shown; None where bounds were asked for.
    """
    group, shown, fit = tried
    counts = group.n_references(None)
    everyone = np.arange(len(counts))
    if settings.aggregation.window is not None and _lies_alike(group, everyone, store, settings):
        return True
    if not fit:
        return False
    asked, _ = affordable(len(counts), len(counts), _SYMMETRIC, dtype_of(settings.precision))
    some = _compared(group, evenly(everyone) if shown is None else evenly(everyone, asked, asked), store, settings)
    nearest = float(neighbours(counts, settings.aggregation.fraction).max(initial=1)) / len(counts)
    sampled = on_one_core(partial(sampled_of, some, full=_SYMMETRIC, nearest=nearest), torch.device("cpu"))
    return sampled.cheapest(shown or 0.0) != FULL


def _lies_alike(group: Group, everyone: np.ndarray, store: EmbeddingStore, settings: ScoreSettings) -> bool:
    """Whether the group's blocks will take the window: they measure the same images, if in another arithmetic."""
    some = _compared(group, reference_sample(everyone, group.content), store, replace(settings, precision="fp32"))
    try:
        return on_one_core(partial(lies_alike, some, RADIUS), torch.device("cpu")).share >= ALIKE
    except PlanError:  # the blocks would not take the window either
        return False


def _compared(group: Group, picked: np.ndarray, store: EmbeddingStore, settings: ScoreSettings) -> Comparison:
    """Some images of a group, among themselves."""
    embeddings = load(store, group, picked)
    return Comparison(
        blocks=[(picked, embeddings)],
        queries=picked,
        references=picked,
        content=group.content,
        part=group.part,
        n_references=group.n_references(None)[picked],
        aggregation=settings.aggregation,
        device="cpu",
        precision=settings.precision,
        memory_bytes=settings.memory_bytes,
        grid=Grid.of(settings.grid, embeddings.shape[1]),
    )
