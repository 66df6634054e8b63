"""Stage 4: what scoring will do and cost, decided before any actor is taken. Pure: counts in, plan out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from patchead.batches import slices
from patchead.errors import PlanError
from patchead.scoring.memory_budget import block_images, choose_schedule

_LARGEST_TASK = 0.1  # of an actor's share of the whole work
_TILES_PER_SHARE = 20


@dataclass(frozen=True)
class Limits:
    """The settings that bound a plan; ``memory_bytes`` is per actor, above the embeddings it holds."""

    memory_bytes: int
    schedule: str
    precision: str
    fraction: float
    min_batch: int
    max_group_size: int
    max_references: int | None
    actors: int


@dataclass(frozen=True)
class GroupPlan:
    """How one group is scored. ``block_images`` of all images means one task on one actor."""

    group_id: str
    images: int
    references: int
    schedule: str  # symmetric | row_stationary | none (too few images)
    block_images: int
    tasks: int
    flops: int
    strip_bytes: int
    prompts: int = 0
    """References that are no images of the group: few-shot mode."""

    @property
    def whole(self) -> bool:
        return self.block_images >= self.images

    def blocks(self) -> list[slice]:
        """The images of each block."""
        return slices(self.images, self.block_images)

    def tiles(self) -> list[tuple[int, int]]:
        """Block pairs (a, b), a <= b, of the symmetric schedule; those of a block with itself, half the work, last."""
        count = range(len(self.blocks()))
        return [*combinations(count, 2), *((a, a) for a in count)]


@dataclass(frozen=True)
class Plan:
    """All groups, the largest first, with the totals a person wants to see before the cluster is taken."""

    groups: tuple[GroupPlan, ...]
    n_patches: int
    dim: int

    @property
    def scored(self) -> tuple[GroupPlan, ...]:
        return tuple(group for group in self.groups if group.schedule != "none")

    @property
    def flops(self) -> int:
        return sum(group.flops for group in self.groups)

    def facts(self) -> dict[str, Any]:
        """What the run record says of the plan."""
        return {
            "schedules": dict(Counter(group.schedule for group in self.groups)),
            "tasks": sum(group.tasks for group in self.groups),
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
        return sum(group.images + group.prompts for group in self.groups) * self.n_patches * self.dim * 2


def make_plan(
    sizes: Sequence[tuple[str, int]],
    n_patches: int,
    dim: int,
    limits: Limits,
    prompts: Mapping[str, int] | None = None,
) -> Plan:
    """Plan every ``(group id, images)``; few-shot where ``prompts`` says how many references each group has.

    A group is one task when its stored embeddings take no more than the memory again and it is no more than a tenth
    of what each actor has to do in all; otherwise it is cut into blocks whose tiles are smaller than that, so that
    the actors end together.

    Raises:
        PlanError: a group is larger than ``max_group_size`` and no ``max_references`` is set; or the memory cannot
            hold the smallest block.
    """
    if prompts is not None:
        total = sum(_flops(n, prompts[name], n_patches, dim) for name, n in sizes)
        share = total // limits.actors
        groups = [_few_shot(name, n, prompts[name], n_patches, dim, limits, share) for name, n in sizes]
    else:
        total = sum(_flops(n, limits.max_references or n, n_patches, dim) for _, n in sizes)
        groups = [_plan_group(name, n, n_patches, dim, limits, total // limits.actors) for name, n in sizes]
    return Plan(tuple(sorted(groups, key=lambda g: (-g.flops, g.group_id))), n_patches, dim)


def _plan_group(name: str, n: int, p: int, d: int, limits: Limits, share: int) -> GroupPlan:
    if n < limits.min_batch:
        return GroupPlan(name, n, 0, "none", n, 0, 0, 0)
    if n > limits.max_group_size and not limits.max_references:
        raise PlanError(
            f"group {name} has {n} images, more than scoring.max_group_size={limits.max_group_size}; its exact cost "
            f"grows with the square of that. Set scoring.max_references (for example 200), cut the group finer with "
            f"archive.group_by, or raise scoring.max_group_size."
        )
    references = min(n, limits.max_references or n)
    schedule = _schedule(n, references, p, limits)
    flops = _flops(n, references, p, d) // (2 if schedule == "symmetric" else 1)
    fits = n * p * d * 2 <= limits.memory_bytes
    shares = _flops(n, references, p, d) / max(1, share)
    straggler = limits.actors > 1 and shares > _LARGEST_TASK
    block = n if fits and not straggler else _block_images(n, references, p, d, limits, schedule, shares)
    blocks = math.ceil(n / block)
    tasks = blocks * (blocks + 1) // 2 if schedule == "symmetric" and blocks > 1 else blocks
    return GroupPlan(
        name, n, references, schedule, block, tasks, flops, _strip_bytes(n, references, p, schedule, block)
    )


def _few_shot(name: str, n: int, prompts: int, p: int, d: int, limits: Limits, share: int) -> GroupPlan:
    """A group whose images are compared with ``prompts`` alone, one row block after the other."""
    if n > limits.max_group_size:
        raise PlanError(
            f"group {name} has {n} images, more than scoring.max_group_size={limits.max_group_size}; the maps of a "
            "group are held at once when it is finished. Cut it finer with archive.group_by, or raise the limit."
        )
    flops, schedule = _flops(n, prompts, p, d), "row_stationary"
    fits = (n + prompts) * p * d * 2 <= limits.memory_bytes
    straggler = limits.actors > 1 and flops / max(1, share) > _LARGEST_TASK
    block = n if fits and not straggler else _block_images(n, prompts, p, d, limits, schedule, flops / max(1, share))
    strip = _strip_bytes(n, prompts, p, schedule, block)
    return GroupPlan(name, n, prompts, schedule, block, math.ceil(n / block), flops, strip, prompts)


def _schedule(n: int, references: int, p: int, limits: Limits) -> str:
    if references < n:
        return "row_stationary"  # a panel is not symmetric
    return choose_schedule(n, p, limits.memory_bytes, limits.schedule, precision=limits.precision)


def _block_images(n: int, references: int, p: int, d: int, limits: Limits, schedule: str, shares: float) -> int:
    """As many images as the memory takes, and few enough that a tile is 1/20 of an actor's work (``shares`` of it)."""
    fitting = block_images(
        n,
        p,
        d,
        limits.memory_bytes,
        schedule="row_stationary",
        precision=limits.precision,
        fraction=limits.fraction,
        references=references,
    )
    if limits.actors == 1:
        return fitting
    pieces = shares * _TILES_PER_SHARE
    blocks = math.sqrt(2 * pieces) if schedule == "symmetric" else pieces
    return min(fitting, max(1, math.ceil(n / math.ceil(blocks))))


def _strip_bytes(n: int, references: int, p: int, schedule: str, block: int) -> int:
    return (n if schedule == "symmetric" else block) * references * p * 4


def _flops(n: int, references: int, p: int, d: int) -> int:
    """Multiplications and additions of all patch pairs: 2 N R P² D."""
    return 2 * n * references * p * p * d
