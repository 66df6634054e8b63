"""Stage 5: patch and image scores of every planned group, by actors that take the plan's tasks in their order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from patchead.errors import DamagedFileError, LostNodesError, PatcheadError
from patchead.nightly.group import Group, GroupJob, load_block
from patchead.nightly.run_record import shortened
from patchead.nightly.score_actor import ScoreActor
from patchead.nightly.score_spec import ScoreSpec
from patchead.nightly.told import MOST_TOLD, Scoring
from patchead.plan.planned import Plan
from patchead.plan.tasks import FINISH, LOAD, PACK, Key, PlannedTasks, Task
from patchead.runtime.executor import Executor, Handle
from patchead.runtime.pool import Pool

_LAST = ("whole", FINISH)  # tasks that end a group


class Scored(NamedTuple):
    """Hold what the stage did and what it could not do."""

    summary: dict[str, Any]
    """See `CallCounts.summary`."""
    failed: dict[str, str]
    """Why, by the id of each group that cannot be scored."""


def score_groups(
    executor: Executor,
    plan: Plan,
    group_of: Callable[[str], Group],
    spec: ScoreSpec,
    pool: Pool,
    *,
    advance: Callable[[int], None],
    told: Scoring | None = None,
    digests: Mapping[str, str] = MappingProxyType({}),
) -> Scored:
    """Score every planned group and stage it in the run's folder; groups staged before are passed over.

    Args:
        executor: runs the tasks of the plan.
        plan: of all groups.
        group_of: the images of a group, by its id.
        spec: what the actors need to know; its counter is a new one of the executor's.
        pool: of actors.
        advance: is called with the images of each group that is finished.
        told: counts tasks and groups for the metrics.
        digests: of everything that the scores of each group depend on; where one is missing, that of the settings.

    Returns:
        What was done, and the groups that cannot be scored; all others are staged.

    Raises:
        DamagedFileError: a group needs a damaged file; all others are scored and staged by then.
    """
    failed, alone = dict[str, PatcheadError](), set[str]()
    wanted = {group.group_id: digests.get(group.group_id, spec.settings.digest) for group in plan.scored}
    for todo, pass_ends, finished in _passes(executor, plan, spec, advance, told, alone, wanted):
        ended = partial(_ended, finished, told)
        with pass_ends, executor.actors(ScoreActor, spec, pool) as actors:
            flow = _Flow(executor, todo, group_of, spec, pool.decode_cpus, wanted)
            for task in PlannedTasks(todo):
                if task.kind == PACK:
                    names = [part.group_id for part in task.parts]
                    actors.call(
                        PACK, task, flow.jobs(task), failed=partial(_set_apart, alone, names), done=partial(ended, task)
                    )
                    continue
                if task.group_id in failed:
                    continue
                if task.kind == LOAD:
                    with _noted(failed, task.group_id):
                        flow.load(task)
                    continue
                with _noted(failed, task.group_id):
                    job = flow.job(task, last=task.kind in _LAST)
                if task.group_id in failed:
                    continue
                results = actors.call(
                    task.kind,
                    task,
                    job,
                    *flow.needed(task),
                    results=len(task.gives),
                    failed=partial(failed.setdefault, task.group_id),
                    done=partial(ended, task),
                )
                if task.group_id not in failed:
                    flow.keep(task, results)
    if failed:
        _tell_failed(executor, failed, len(plan.scored))
        if damaged := [exc for exc in failed.values() if isinstance(exc, DamagedFileError)]:
            raise damaged[0]
    reasons = {name: shortened(str(exc)) for name, exc in failed.items()}
    if told is not None:
        for name, why in reasons.items():
            told.group_failed(name, why)
    return Scored(spec.counter.summary(), reasons)


def _ended(finished: Callable[[str], None], told: Scoring | None, task: Task) -> None:
    """Count a task that is done; each of a pack's."""
    for part in task.parts or (task,):
        then = partial(finished, part.group_id) if part.kind in _LAST else None
        if told is not None:
            told.task_done(part.group_id, then)
        elif then is not None:
            then()


def _set_apart(alone: set[str], names: Sequence[str], exc: PatcheadError) -> None:
    """Have the groups of a pack of which one cannot be scored, or has ended its process, done each by itself."""
    alone.update(names)


@contextmanager
def _noted(failed: dict[str, PatcheadError], group_id: str) -> Iterator[None]:
    """Note an error as that of a group, which ends the group and no other; lost nodes end the pass."""
    try:
        yield
    except LostNodesError:
        raise
    except PatcheadError as exc:
        failed.setdefault(group_id, exc)


def _tell_failed(executor: Executor, failed: Mapping[str, PatcheadError], groups: int) -> None:
    """Name the groups that could not be scored.

    Those of damaged files are counted only: each file is told when it is set aside and made again.
    """
    given_up = {name: exc for name, exc in failed.items() if not isinstance(exc, DamagedFileError)}
    for group_id, exc in list(given_up.items())[:MOST_TOLD]:
        executor.tell(f"warning: group {group_id} cannot be scored: {exc}")
    if given_up:
        executor.tell(f"{len(given_up)} of {groups} groups cannot be scored; the others are scored and kept")
    if damaged := len(failed) - len(given_up):
        executor.tell(f"{damaged} of {groups} groups need damaged files; the others are scored and kept")


def _passes(
    executor: Executor,
    plan: Plan,
    spec: ScoreSpec,
    advance: Callable[[int], None],
    counted: Scoring | None,
    alone: set[str],
    wanted: Mapping[str, str],
) -> Iterator[tuple[Plan, AbstractContextManager[None], Callable[[str], None]]]:
    """What is left to score, a context in which to do it, and what to call of each group.

    Again after lost nodes, and where groups of a pack are to be done each by itself: ``alone``.
    """
    images = {group.group_id: group.images for group in plan.scored}
    told, done = set[str](), list[bool]()

    def finished(group_id: str) -> None:
        if group_id not in told:
            told.add(group_id)
            if counted is not None:
                counted.group_done(group_id, images[group_id])
            advance(images[group_id])

    @contextmanager
    def one_pass() -> Iterator[None]:
        before = len(alone)
        try:
            yield
            if len(alone) == before:
                done.append(True)
        except LostNodesError as exc:
            executor.tell(f"warning: {exc}; groups that were not finished are scored anew")

    while not done:
        there = spec.folder.digests()
        staged = {group_id for group_id, digest in wanted.items() if there.get(group_id) == digest}
        for group_id in images:
            if group_id in staged:
                finished(group_id)
        todo = tuple(group for group in plan.scored if group.group_id not in staged)
        yield replace(plan, groups=todo, actors=0 if alone else plan.actors), one_pass(), finished


class _Flow:
    """What the tasks of one pass hand on: the job of each group, and the values that tasks give and need."""

    def __init__(
        self,
        executor: Executor,
        todo: Plan,
        group_of: Callable[[str], Group],
        spec: ScoreSpec,
        decode_cpus: float,
        digests: Mapping[str, str],
    ) -> None:
        self._executor, self._group_of, self._spec, self._decode_cpus = executor, group_of, spec, decode_cpus
        self._digests = digests
        self._plans = {group.group_id: group for group in todo.groups}
        self._jobs: dict[str, Handle] = {}
        self._values: dict[tuple[str, Key], list[Handle]] = defaultdict(list)

    def job(self, task: Task, *, last: bool = False) -> Handle:
        """Give the job of the task's group, which is made by its first task and forgotten with its last."""
        name = task.group_id
        if name not in self._jobs:
            self._jobs[name] = self._executor.put(self._made(name))
        return self._jobs.pop(name) if last else self._jobs[name]

    def jobs(self, task: Task) -> list[GroupJob]:
        """Make the jobs of a pack's groups: they travel with the call."""
        return [self._made(part.group_id) for part in task.parts]

    def _made(self, name: str) -> GroupJob:
        group = self._group_of(name)
        return GroupJob(group, self._plans[name], self._spec.settings.panel(group), self._digests[name])

    def load(self, task: Task) -> None:
        """Have a block read."""
        arguments = (self._spec.store, self.job(task), task.blocks[0], self._spec.counter)
        handle = self._executor.submit(load_block, *arguments, num_cpus=self._decode_cpus)
        self._values[task.group_id, task.gives[0]] = [handle]

    def needed(self, task: Task) -> list[Handle]:
        """Give the values that a task needs."""
        handles = [handle for key in task.needs for handle in self._values[task.group_id, key]]
        return [self._executor.stream(handles)] if task.kind == "query_block" else handles

    def keep(self, task: Task, results: Iterable[Handle]) -> None:
        """Keep what a task gives, and forget what no later one needs."""
        for key, handle in zip(task.gives, results, strict=True):
            self._values[task.group_id, key].append(handle)
        for key in task.frees:
            del self._values[task.group_id, key]
