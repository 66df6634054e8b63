"""Stage 5: leave-one-out scores of every planned group, by Ray actors over whole groups or over tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray

from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.blocks import Job, Load, cut
from patchead.nightly.group import Group, load_block
from patchead.nightly.score_actor import ScoreActor, ScoreSettings
from patchead.plan.group_plan import GroupPlan, Plan
from patchead.runtime.call_counts import CallCounts, open_call_counts
from patchead.runtime.dispatch import dispatch
from patchead.runtime.pool import Pool
from patchead.runtime.worker_errors import worker_errors


def score(
    plan: Plan,
    group_of: Callable[[str], Group],
    store: EmbeddingStore,
    folder: RunFolder,
    settings: ScoreSettings,
    pool: Pool,
    *,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Score every planned group and stage it in the run's folder; groups staged before are passed over.

    Returns:
        What was done, see `CallCounts.summary`.

    Raises:
        PatcheadError: embeddings cannot be read, or scores cannot be staged.
    """
    staged = folder.scored_groups(settings.digest)
    todo = [group for group in plan.scored if group.group_id not in staged]
    advance(sum(group.images for group in plan.scored) - sum(group.images for group in todo))
    if not todo:
        return CallCounts().summary()
    name, counts = open_call_counts()
    # A lost actor is started again and its calls are retried for as long as it takes: every call is idempotent.
    remote = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus, max_restarts=-1, max_task_retries=-1)(
        ScoreActor
    )
    actors = [remote.remote(index, store, folder, settings, pool, name) for index in range(pool.size)]
    loader = ray.remote(num_cpus=pool.decode_cpus)(load_block)
    sizes = {group.group_id: group.images for group in todo}

    def load(group: ray.ObjectRef, indices: Any) -> ray.ObjectRef:
        return loader.remote(store, group, indices, counts)

    with worker_errors():
        for finished, reference in dispatch(actors, _jobs(todo, group_of, settings, load)):
            ray.get(reference)  # nothing, or the error of the call
            if finished:
                advance(sizes[finished])
    return ray.get(counts.summary.remote())


def _jobs(
    todo: Iterable[GroupPlan], group_of: Callable[[str], Group], settings: ScoreSettings, load: Load
) -> Iterator[Job]:
    """All calls in an order in which no actor waits: a group's tiles are put together while the next one's are made."""
    together: Iterator[Job] = iter(())
    for plan in sorted(todo, key=lambda group: group.whole):
        if plan.whole:
            yield plan.group_id, _whole(group_of(plan.group_id), plan)
            continue
        group = group_of(plan.group_id)
        pieces, then = cut(plan, group, settings.panel(group), load)
        yield from pieces
        yield from together
        together = then
    yield from together


def _whole(group: Group, plan: GroupPlan) -> Callable[[Any], ray.ObjectRef]:
    return lambda actor: actor.whole.remote(group, plan)
