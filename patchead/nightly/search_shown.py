"""Images that are shown are searched fully: what bound and refine left as bounds gives way before anything is drawn.

Which images these are is known when the group is judged (`maps.shown`); they are few, and each is searched for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from patchead.errors import LostNodesError, PatcheadError
from patchead.nightly.group import Group, GroupJob
from patchead.nightly.score_actor import ScoreActor
from patchead.nightly.score_spec import ScoreSpec
from patchead.plan.planned import Plan
from patchead.plan.tasks import Task
from patchead.runtime.executor import Executor

_LEAST = 4  # images of one call: each call reads all references


def search_shown(
    executor: Executor,
    plan: Plan,
    group_of: Callable[[str], Group],
    make_spec: Callable[[], ScoreSpec],
    wanted: Mapping[str, np.ndarray],
    failed: Callable[[str, PatcheadError], None],
) -> None:
    """Search all patches of some images of scored groups and stage them in the place of their bounds (method.md §10).

    Args:
        executor: runs the calls, on actors of the scoring pool.
        plan: by which the groups were scored: one that one actor has scored is one call, others are shared.
        group_of: the images of a group, by its id.
        make_spec: says what the actors need to know.
        wanted: places of the images, int64 (n,) ascending, by group.
        failed: is given a group and its error, where embeddings or staged scores cannot be read, or these cannot be
            written: its bounds stay. They stay, too, where nodes were lost: the caller asks again.
    """
    spec, plans = make_spec(), {group.group_id: group for group in plan.scored}
    try:
        with executor.actors(ScoreActor, spec, spec.pool) as actors:
            for name, places in wanted.items():
                group, without = group_of(name), partial(failed, name)
                job = executor.put(GroupJob(group, plans[name], spec.settings.panel(group)))
                calls = 1 if plans[name].whole else max(1, min(spec.pool.size, len(places) // _LEAST))
                parts = [
                    actors.call(
                        "search_images", _task(name, "search_images", number), job, part, results=1, failed=without
                    )
                    for number, part in enumerate(np.array_split(places, calls))
                ]
                if all(parts):  # else one has failed already
                    found = [handle for (handle,) in parts]
                    actors.call("replace_maps", _task(name, "replace_maps"), job, places, *found, failed=without)
    except LostNodesError as exc:
        executor.tell(f"warning: {exc}; images that were not searched are searched anew")


def _task(group_id: str, kind: str, number: int = 0) -> Task:
    return Task(group_id=group_id, kind=kind, blocks=(number,))
