"""The calls that scoring a plan makes, in the order in which `pipeline.score` makes them. Pure: plan in, tasks out.

FLOPs are counted as `plan` counts them, 2 N R P² D and half of that for the symmetric schedule, so a diagonal tile of
n images counts n · n / 2 pairs: the kernel skips the n pairs of an image with itself and multiplies some others twice.
The tasks of a plan then add up to exactly `Plan.flops`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from patchead.pipeline.plan import GroupPlan, Plan

_STORED_BYTES = 2  # a float16 value of an embedding
_SCORE_BYTES = 4  # a float32 distance or score

LOAD = "load"
FINISH = "finish"
HELD = frozenset({"tile", "diagonal", "reduce", "rows"})
"""Tasks whose results stay in the object store until their group is finished, and are lost with their node."""


@dataclass(frozen=True)
class Task:
    """One call: a block that is loaded (kind `LOAD`, on any CPU of the cluster), or work for one actor.

    ``needs`` are the blocks of the group that must be loaded before. A task starts when every task of an earlier
    ``phase`` is done: the driver waits between the tiles of a group, its reduction and its end.
    """

    group_id: str
    kind: str  # whole | load | tile | diagonal | rows | reduce | finish
    phase: int
    flops: int = 0
    needs: tuple[int, ...] = ()
    read_bytes: int = 0
    """From the lake."""
    bytes_in: int = 0
    """From the object store to the actor."""
    bytes_out: int = 0
    """From the actor to the object store."""

    @property
    def moved_bytes(self) -> int:
        return self.bytes_in + self.bytes_out


@dataclass(frozen=True)
class PlannedTasks:
    """Every task of a plan, made anew by each iteration, so that a plan of any size takes no memory."""

    plan: Plan

    def __iter__(self) -> Iterator[Task]:
        phase = 0
        for group in self.plan.scored:
            if not group.whole:
                for task in group_tasks(group, self.plan.n_patches, self.plan.dim, phase):
                    yield task
                phase = task.phase + 1
        for group in self.plan.scored:
            if group.whole:
                yield from group_tasks(group, self.plan.n_patches, self.plan.dim, phase)


def group_tasks(group: GroupPlan, p: int, d: int, phase: int = 0) -> Iterator[Task]:
    """The tasks of one group of images of ``p`` patches and ``d`` dimensions; its first phase is ``phase``."""
    if group.schedule == "none":
        return
    image = p * d * _STORED_BYTES
    if group.whole:
        yield Task(group.group_id, "whole", phase, group.flops, read_bytes=group.images * image)
        return
    rows = _sizes(group.images, math.ceil(group.images / group.block_images), group.block_images)
    if group.schedule == "symmetric":
        yield from _loads(group.group_id, rows, image, phase)
        yield from _tiles(group, rows, p, d, phase)
        phase += 1
        yield from _reductions(group, rows, p, phase)
    else:
        count = math.ceil(group.references / group.block_images)
        columns = [group.references // count + (i < group.references % count) for i in range(count)]
        yield from _loads(group.group_id, columns, image, phase)
        yield from _row_blocks(group, rows, len(columns), p, d, phase)
    scores = group.images * p * _SCORE_BYTES
    yield Task(group.group_id, FINISH, phase + 1, bytes_in=scores)


def _sizes(n: int, blocks: int, size: int) -> list[int]:
    return [min(size, n - size * i) for i in range(blocks)]


def _loads(group_id: str, sizes: list[int], image: int, phase: int) -> Iterator[Task]:
    for block, size in enumerate(sizes):
        stored = size * image
        yield Task(group_id, LOAD, phase, needs=(block,), read_bytes=stored, bytes_out=stored)


def _tiles(group: GroupPlan, rows: list[int], p: int, d: int, phase: int) -> Iterator[Task]:
    image, pair = p * d * _STORED_BYTES, p * _SCORE_BYTES
    for a, b in group.tiles():
        if a == b:
            yield Task(
                group.group_id,
                "diagonal",
                phase,
                flops=rows[a] * rows[a] * p * p * d,
                needs=(a,),
                bytes_in=rows[a] * image,
                bytes_out=rows[a] * rows[a] * pair,
            )
        else:
            yield Task(
                group.group_id,
                "tile",
                phase,
                flops=2 * rows[a] * rows[b] * p * p * d,
                needs=(a, b),
                bytes_in=(rows[a] + rows[b]) * image,
                bytes_out=2 * rows[a] * rows[b] * pair,
            )


def _reductions(group: GroupPlan, rows: list[int], p: int, phase: int) -> Iterator[Task]:
    """One per row block: it takes its row of the strip and gives patch scores."""
    for size in rows:
        scores = size * p * _SCORE_BYTES
        yield Task(group.group_id, "reduce", phase, bytes_in=group.images * scores, bytes_out=scores)


def _row_blocks(group: GroupPlan, rows: list[int], columns: int, p: int, d: int, phase: int) -> Iterator[Task]:
    """One per row block: it reads its own images, and every reference block streams past."""
    image = p * d * _STORED_BYTES
    for size in rows:
        yield Task(
            group.group_id,
            "rows",
            phase,
            flops=2 * size * group.references * p * p * d,
            needs=tuple(range(columns)),
            read_bytes=size * image,
            bytes_in=group.references * image,
            bytes_out=size * p * _SCORE_BYTES,
        )
