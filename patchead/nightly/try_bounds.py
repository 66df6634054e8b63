"""Groups that could be cut into tiles are tried before they are planned: does bound and refine cost less there?

A group that one actor holds, and a block of queries, is tried by the actor that has it. A tile sees two blocks of
images and could not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from patchead.search.bound_choice import (
    COSTS_MORE,
    FULL,
    MOST_SHOWN,
    NO_MEMORY,
    TOO_FEW_TO_TRY,
    affordable,
    pays_on,
    refused_on,
)
from patchead.search.bounded_group import RADIUS, Comparison, sampled_of
from patchead.search.bounded_memory import fits, window_fits
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
    items = (_Tried.of(group, groups[group.group_id], plan, limits, device) for group in tried)
    found = dict(run_tasks(partial(_why_tiles, store=store, settings=settings), items)) if tried else {}
    why_tiles = {tried[at].group_id: why for at, why in found.items()}
    paying = frozenset(name for name, why in why_tiles.items() if not why)
    as_planned = paying == {group.group_id for group in tried if group.schedule == BOUNDED}
    others = {name: why for name, why in why_tiles.items() if why}
    return plan if as_planned else make(replace(limits, bounded=paying, full=others))


def could_be_tiled(group: GroupPlan, plan: Plan, limits: Limits, device: str) -> bool:
    """Tell whether a group in pieces is tried: bounds, or a window, may cost less than its tiles, or more."""
    if group.schedule != BOUNDED:
        return group.in_tiles and group.tries_bounds and not _why_none(group, plan, limits, device)
    if group.whole or group.prompts or group.references != group.images:
        return False
    wanted = pays_on(device) or limits.window is not None  # on a GPU, bounds are had only by who asks for them
    return wanted and _work(group, plan, limits).choose_schedule(limits.memory_bytes) == "symmetric"


def _work(group: GroupPlan, plan: Plan, limits: Limits) -> Workload:
    return workload(group.images, group.references, plan.n_patches, plan.dim, limits)


def _why_none(group: GroupPlan, plan: Plan, limits: Limits, device: str) -> str:
    """Why bounds cannot pay, whatever is in the group; empty where they may."""
    if group.shown >= _SYMMETRIC:
        return MOST_SHOWN
    held = fits(_work(group, plan, limits), group.images, limits.memory_bytes, limits.threads)
    return refused_on(device, asked=False) or ("" if held else NO_MEMORY)


@dataclass(frozen=True)
class _Tried:
    """A group that is tried, and what its counts alone have told."""

    group: Group
    shown: float
    window: bool
    """Whether its blocks can hold a window, where it is auto."""
    why_none: str
    asked: bool
    """Whether bounds were asked for."""

    @classmethod
    def of(cls, group: GroupPlan, rows: pa.Table, plan: Plan, limits: Limits, device: str) -> _Tried:
        work, asked = _work(group, plan, limits), limits.schedule == BOUNDED and limits.window is None
        window = limits.window is not None and window_fits(work, limits.memory_bytes, limits.threads, RADIUS)
        return cls(Group.of(group.group_id, rows), group.shown, window, _why_none(group, plan, limits, device), asked)


def _why_tiles(tried: _Tried, *, store: EmbeddingStore, settings: ScoreSettings) -> str:
    """Why tiles cost less than bounds, or a window, in one group, by a few of its images; empty where they do not."""
    group, counts = tried.group, tried.group.n_references(None)
    everyone = np.arange(len(counts))
    if tried.window and _lies_alike(group, everyone, store, settings):
        return ""
    if tried.why_none:
        return tried.why_none
    few, _ = affordable(len(counts), len(counts), _SYMMETRIC, dtype_of(settings.precision))
    picked = evenly(everyone) if tried.asked else evenly(everyone, few, few)
    if not len(picked):
        return TOO_FEW_TO_TRY
    some = _compared(group, picked, store, settings)
    nearest = float(neighbours(counts, settings.aggregation.fraction).max(initial=1)) / len(counts)
    sampled = on_one_core(partial(sampled_of, some, full=_SYMMETRIC, nearest=nearest), torch.device("cpu"))
    return COSTS_MORE if sampled.cheapest(tried.shown) == FULL else ""


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
