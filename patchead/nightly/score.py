"""Stage 5: patch and image scores of every planned group, by actors that take the plan's tasks in their order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from patchead.errors import LostNodesError
from patchead.nightly.group import Group, GroupJob, load_block
from patchead.nightly.score_actor import ScoreActor
from patchead.nightly.score_spec import ScoreSpec
from patchead.plan.group_plan import GroupPlan, Plan
from patchead.plan.tasks import LOAD, Key, PlannedTasks
from patchead.runtime.executor import Executor, Handle
from patchead.runtime.pool import Pool


def score_groups(
    executor: Executor,
    plan: Plan,
    group_of: Callable[[str], Group],
    spec: ScoreSpec,
    pool: Pool,
    *,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Score every planned group and stage it in the run's folder; groups staged before are passed over.

    Args:
        executor: runs the tasks of the plan.
        plan: of all groups.
        group_of: the images of a group, by its id.
        spec: what the actors need to know; its counter is a new one of the executor's.
        pool: of actors.
        advance: is called with the images of each group that is finished.

    Returns:
        What was done, see `CallCounts.summary`.

    Raises:
        PatcheadError: embeddings cannot be read, or scores cannot be staged.
    """
    told = set[str]()

    def finished(group: GroupPlan) -> None:
        if group.group_id not in told:
            told.add(group.group_id)
            advance(group.images)

    while True:
        staged = spec.folder.scored_groups(spec.settings.digest)
        todo = replace(plan, groups=tuple(group for group in plan.scored if group.group_id not in staged))
        for group in plan.scored:
            if group.group_id in staged:
                finished(group)
        try:
            _score(executor, todo, group_of, spec, pool, finished)
            return spec.counter.summary()
        except LostNodesError as exc:
            executor.tell(f"warning: {exc}; groups that were not finished are scored anew")


def _score(
    executor: Executor,
    todo: Plan,
    group_of: Callable[[str], Group],
    spec: ScoreSpec,
    pool: Pool,
    finished: Callable[[GroupPlan], None],
) -> None:
    """Score the groups of a plan, as far as the nodes last."""
    plans = {group.group_id: group for group in todo.groups}
    jobs: dict[str, Handle] = {}
    values: dict[tuple[str, Key], list[Handle]] = defaultdict(list)
    with executor.actors(ScoreActor, spec, pool) as actors:
        for task in PlannedTasks(todo):
            name = task.group_id
            if name not in jobs:
                group = group_of(name)
                jobs[name] = executor.put(GroupJob(group, plans[name], spec.settings.panel(group)))
            if task.kind == LOAD:
                arguments = (spec.store, jobs[name], task.blocks[0], spec.counter)
                values[name, task.gives[0]] = [executor.submit(load_block, *arguments, num_cpus=pool.decode_cpus)]
                continue
            needed = [handle for key in task.needs for handle in values[name, key]]
            if task.kind == "query_block":
                needed = [executor.stream(needed)]
            ends = task.kind in ("whole", "finish")
            results = actors.call(
                task.kind,
                task,
                jobs.pop(name) if ends else jobs[name],
                *needed,
                results=len(task.gives),
                done=partial(finished, plans[name]) if ends else None,
            )
            for key, handle in zip(task.gives, results, strict=True):
                values[name, key].append(handle)
            for key in task.frees:
                del values[name, key]
