"""Stage 4: how each group will be scored and at what cost, decided before any actor is taken. Counts in, plan out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, NamedTuple

from patchead.batches import slices
from patchead.errors import PlanError
from patchead.scoring.memory_budget import Workload, evidence_bytes
from patchead.scoring.precision import dtype_of
from patchead.search.bound_choice import affordable
from patchead.search.bounded_memory import portions
from patchead.search.score import BOUNDED, WINDOWED

_REDUCTION = {"symmetric": 2, BOUNDED: 20}
"""Of the work of all pairs, by schedule: symmetric does each once; bounded did a thirtieth on solar cells, and is
presumed to do a twentieth. What it does is known when it has looked into the group (`verdicts.search_share`)."""
_FULL = ("symmetric", "row_stationary")
_CALIBRATING = 5  # images that set the threshold of regions
FLAGGED = 0.02
"""Share of the images that is presumed flagged."""
_LARGEST_TASK = 0.1  # of an actor's share of the whole work
_TILES_PER_SHARE = 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hold the settings that bound a plan; ``memory_bytes`` is per actor, above the embeddings it holds."""

    memory_bytes: int
    schedule: str = "auto"
    window: int | Literal["auto"] | None = None
    """See `Aggregation.window`."""
    precision: str = "fp32"
    fraction: float = 0.3
    repeats: bool = False
    min_batch: int = 5
    max_group_size: int = 20_000
    max_references: int | None = None
    actors: int = 1
    shown: int | None = None
    """Images of each group that will be shown, flagged or not, and so searched fully; None: all."""
    bounded: frozenset[str] = frozenset()
    """Groups for which ``auto`` is ``bounded``, as a sample of them has shown."""


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """Say how one group is scored. ``block_images`` of all images means one task on one actor."""

    group_id: str
    images: int
    references: int
    schedule: str  # symmetric | row_stationary | bounded | window | none (too few images)
    block_images: int
    flops: int = 0
    prompts: int = 0
    """References that are no images of the group: few-shot mode."""
    nulls: int = 0
    """Of ``images``: those that are scored with the group to know how normal images score (method.md §7.3)."""
    window: int = 0
    """Radius of the schedule ``window``."""
    shown: float | None = None
    """Share of the images that will be shown. With it, it is tried first whether bound and refine costs less."""
    evidence_bytes: int = 0
    """Of each image, beside its patch scores, where repeated defects are looked for."""

    @property
    def whole(self) -> bool:
        """Tell whether one task on one actor scores the group."""
        return self.block_images >= self.images

    @property
    def in_tiles(self) -> bool:
        """Tell whether the group is cut into tiles: none of them sees whole images, so actors cannot try bounds."""
        return self.schedule == "symmetric" and not self.whole

    @property
    def matching_tasks(self) -> int:
        """Count the tasks that compare images: the group, its tiles, or its query blocks."""
        if self.schedule == "none":
            return 0
        blocks = math.ceil(self.images / self.block_images)
        return blocks * (blocks + 1) // 2 if self.schedule == "symmetric" else blocks

    def blocks(self) -> list[slice]:
        """Return the images of each block of queries."""
        return slices(self.images, self.block_images)

    def reference_blocks(self) -> int:
        """Return into how many blocks the references are cut that stream past (row-stationary)."""
        return math.ceil(self.references / self.block_images)

    def tiles(self) -> list[tuple[int, int]]:
        """Return block pairs (a, b), a <= b, of the symmetric schedule; a block with itself, half the work, last."""
        count = range(len(self.blocks()))
        return [*combinations(count, 2), *((a, a) for a in count)]


class PromptCounts(NamedTuple):
    """Count what a group has of prompts: its references, and what is scored with it to know how normal images score."""

    references: int
    nulls: int


@dataclass(frozen=True)
class Plan:
    """Hold all groups, the largest first, with the totals a person wants to see before the cluster is taken."""

    groups: tuple[GroupPlan, ...]
    n_patches: int
    dim: int
    actors: int = 0
    """That will do it, so that small groups can share a call; 0: each group has its own."""

    @property
    def scored(self) -> tuple[GroupPlan, ...]:
        """Give the groups that have images enough."""
        return tuple(group for group in self.groups if group.schedule != "none")

    @property
    def flops(self) -> int:
        """Add up the FLOPs of all groups."""
        return sum(group.flops for group in self.groups)

    def facts(self) -> dict[str, Any]:
        """Collect what the run record says of the plan."""
        return {
            "schedules": dict(Counter(group.schedule for group in self.groups)),
            "tasks": sum(group.matching_tasks for group in self.groups),
            "flops": self.flops,
            "groups_in_blocks": sum(not group.whole for group in self.scored),
            "references": {
                group.group_id: group.references
                for group in self.scored
                if group.prompts or group.references < group.images
            },
        }

    @property
    def embedding_bytes(self) -> int:
        """Add up the bytes of all stored embeddings, the prompts' included."""
        return sum(group.images + group.prompts for group in self.groups) * self.n_patches * self.dim * 2


def make_plan(
    sizes: Sequence[tuple[str, int]],
    n_patches: int,
    dim: int,
    limits: Limits,
    prompts: Mapping[str, PromptCounts] | None = None,
    refused: dict[str, str] | None = None,
) -> Plan:
    """Plan every ``(group id, images)``; few-shot where ``prompts`` says what each group has of them.

    A group is one task when its stored embeddings take no more than the memory again and it is no more than a tenth
    of what each actor has to do in all; otherwise it is cut into blocks whose tiles are smaller than that, so that
    the actors end together. With ``refused``, a group that cannot be planned ends nothing: it is planned as one that
    is not scored, and why is told there.

    Raises:
        PlanError: a group is larger than ``max_group_size`` and no ``max_references`` is set; or the memory cannot
            hold the smallest block.
    """
    few_shot = {} if prompts is None else prompts
    counted = [
        (name, n + few_shot[name].nulls, few_shot[name].references)
        if few_shot
        else (name, n, min(n, limits.max_references or n))
        for name, n in sizes
    ]
    whole = sum(_flops(n, references, n_patches, dim) for _, n, references in counted)
    share = max(1, whole // limits.actors)
    groups = []
    for name, n, references in counted:
        try:
            work = workload(n, references, n_patches, dim, limits)
            groups.append(_plan_group(name, work, limits, share, few_shot.get(name)))
        except PlanError as exc:
            if refused is None:
                raise
            refused[name] = str(exc)
            groups.append(GroupPlan(group_id=name, images=n, references=0, schedule="none", block_images=n))
    return Plan(tuple(sorted(groups, key=lambda g: (-g.flops, g.group_id))), n_patches, dim, limits.actors)


def workload(images: int, references: int, n_patches: int, dim: int, limits: Limits) -> Workload:
    """Describe the scoring of one group for `scoring.memory_budget`."""
    return Workload(
        images=images,
        patches=n_patches,
        dim=dim,
        references=references,
        precision=limits.precision,
        fraction=limits.fraction,
        repeats=limits.repeats,
    )


def _plan_group(
    name: str, work: Workload, limits: Limits, share: int, few_shot: PromptCounts | None = None
) -> GroupPlan:
    """One group, ``share`` being the FLOPs that each actor has to do in all."""
    n, references = work.images, work.references
    prompts, nulls = few_shot or PromptCounts(0, 0)
    if few_shot is None and n < limits.min_batch:
        return GroupPlan(group_id=name, images=n, references=0, schedule="none", block_images=n)
    _refuse_large(name, n - nulls, limits, few_shot=few_shot is not None)
    schedule = "row_stationary"  # prompts and panels are not symmetric
    if limits.window is not None or limits.schedule == BOUNDED or name in limits.bounded:
        schedule = WINDOWED if isinstance(limits.window, int) else BOUNDED
        portions(work, n, limits.memory_bytes, threads=1)  # refuses what the memory does not hold
    elif few_shot is None and references == n:
        schedule = work.choose_schedule(limits.memory_bytes, limits.schedule)
    flops = _flops(n, references, work.patches, work.dim)
    fits = (n + prompts) * work.stored_bytes <= limits.memory_bytes
    straggler = limits.actors > 1 and flops / share > _LARGEST_TASK
    planned = GroupPlan(
        group_id=name,
        images=n,
        references=references,
        schedule=schedule,
        block_images=n if fits and not straggler else _block_images(work, limits, schedule, flops / share),
        prompts=prompts,
        nulls=nulls,
        window=limits.window if isinstance(limits.window, int) else 0,
        evidence_bytes=evidence_bytes(references) if limits.repeats else 0,
    )
    return replace(planned, flops=flops_of(planned, n, work.patches, work.dim), shown=_shown(planned, limits))


def _shown(group: GroupPlan, limits: Limits) -> float | None:
    """Share of the images that will be shown, where bound and refine may cost less than the planned full search.

    None where they are not chosen by themselves, where they cannot be, and where a sample would cost too much.
    """
    if limits.schedule != "auto" or limits.shown is None or limits.repeats or group.schedule not in _FULL:
        return None
    full = 1 / _REDUCTION.get(group.schedule, 1)
    if affordable(group.images, group.references, full, dtype_of(limits.precision)) == (0, 0):
        return None
    return min(1.0, (limits.shown + _CALIBRATING) / group.images + FLAGGED)


def _refuse_large(name: str, n: int, limits: Limits, *, few_shot: bool) -> None:
    if n <= limits.max_group_size or (limits.max_references and not few_shot):
        return
    found = f"group {name} has {n} images, more than `max_group_size`={limits.max_group_size}; "
    if few_shot:
        raise PlanError(
            found + "the maps of a group are held at once when it is finished. Cut it finer with `group_by`, or "
            "raise the limit."
        )
    raise PlanError(
        found + "its exact cost grows with the square of that. Set `max_references` (for example 200), cut the "
        "group finer with `group_by`, or raise `max_group_size`."
    )


def _block_images(work: Workload, limits: Limits, schedule: str, shares: float) -> int:
    """As many images as the memory takes, and few enough that a tile is 1/20 of an actor's work (``shares`` of it)."""
    fitting = work.block_images(limits.memory_bytes, "row_stationary")
    if limits.actors == 1:
        return fitting
    pieces = shares * _TILES_PER_SHARE
    blocks = math.sqrt(2 * pieces) if schedule == "symmetric" else pieces
    return min(fitting, max(1, math.ceil(work.images / math.ceil(blocks))))


def flops_of(group: GroupPlan, queries: int, p: int, d: int) -> int:
    """Count what the first ``queries`` images of a group take by its schedule, with ``p`` patches, ``d`` dimensions."""
    if group.schedule == WINDOWED:
        return 2 * queries * group.references * p * min(p, (2 * group.window + 1) ** 2) * d
    return _flops(queries, group.references, p, d) // _REDUCTION.get(group.schedule, 1)


def _flops(n: int, references: int, p: int, d: int) -> int:
    """Multiplications and additions of all patch pairs: 2 N R P² D."""
    return 2 * n * references * p * p * d
