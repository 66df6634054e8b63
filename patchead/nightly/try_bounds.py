"""Groups that are cut into tiles are tried before they are planned: does bound and refine cost less there?

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

from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.group import Group, load
from patchead.nightly.score_spec import ScoreSettings
from patchead.plan.group_plan import Limits, workload
from patchead.plan.planned import GroupPlan, Plan
from patchead.runtime.executor import RunTasks
from patchead.scoring.aggregate import neighbours
from patchead.scoring.precision import dtype_of
from patchead.search.alike import evenly
from patchead.search.bound_choice import FULL, affordable
from patchead.search.bounded_group import Comparison, sampled_of
from patchead.search.bounded_memory import fits
from patchead.search.grid import Grid
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
    """Plan the groups by bound and refine that are cut into tiles and cost less by it (method.md §10).

    Args:
        plan: by counts alone.
        make: plans again.
        limits: of the plan.
        groups: columns of the manifest and the receipts by group id.
        store: of the embeddings; a few images of each group are read.
        settings: of the scores.
        run_tasks: what runs a function on many items.
        device: where the scores are computed; on a GPU bounds take longer than the full search.

    Raises:
        PatcheadError: embeddings cannot be read.
    """

    def fitting(group: GroupPlan) -> bool:
        work = workload(group.images, group.references, plan.n_patches, plan.dim, limits)
        return fits(work, group.images, limits.memory_bytes, limits.threads)

    tiled = [group for group in plan.scored if group.in_tiles and group.shown is not None and fitting(group)]
    if device != "cpu" or not tiled:
        return plan
    items = ((Group.of(group.group_id, groups[group.group_id]), group.shown) for group in tiled)
    found = run_tasks(partial(_pays, store=store, settings=settings), items)
    bounded = frozenset(tiled[number].group_id for number, pays in found if pays)
    return make(replace(limits, bounded=bounded)) if bounded else plan


def _pays(tried: tuple[Group, float], *, store: EmbeddingStore, settings: ScoreSettings) -> bool:
    """Whether bounds cost less in one group, of which a share is shown, by a few of its images."""
    group, shown = tried
    counts = group.n_references(None)
    count, _ = affordable(len(counts), len(counts), _SYMMETRIC, dtype_of(settings.precision))
    picked = evenly(np.arange(len(counts)), count, count)
    embeddings = load(store, group, picked)
    some = Comparison(
        blocks=[(picked, embeddings)],
        queries=picked,
        references=picked,
        content=group.content,
        part=group.part,
        n_references=counts[picked],
        aggregation=settings.aggregation,
        device="cpu",
        precision=settings.precision,
        memory_bytes=settings.memory_bytes,
        grid=Grid.of(settings.grid, embeddings.shape[1]),
    )
    nearest = float(neighbours(counts, settings.aggregation.fraction).max(initial=1)) / len(counts)
    sampled = on_one_core(partial(sampled_of, some, full=_SYMMETRIC, nearest=nearest), torch.device("cpu"))
    return sampled.cheapest(shown) != FULL
