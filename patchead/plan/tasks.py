"""The calls that scoring a plan makes, in the order in which `nightly.score` makes them. Pure: plan in, tasks out.

FLOPs are counted as `plan` counts them, 2 N R P² D and half of that for the symmetric schedule, so a diagonal tile of
n images counts n · n / 2 pairs: the kernel skips the n pairs of an image with itself and multiplies some others twice.
The tasks of a plan then add up to exactly `Plan.flops`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from patchead.plan.group_plan import GroupPlan, Plan
from patchead.scoring.memory_budget import SCORE_BYTES, STORED_BYTES

LOAD = "load"
FINISH = "finish"
HELD = frozenset({"tile", "diagonal", "reduce", "rows"})
"""Tasks whose results stay in the object store until their group is finished, and are lost with their node."""

Key = tuple[str, int]
"""A block of embeddings (``block``, number), a row of tiles (``row``, number), or all scores (``scores``, 0)."""


@dataclass(frozen=True)
class Task:
    """One call: a block that is loaded (kind `LOAD`, on any CPU of the cluster), or work for one actor.

    It starts when every task of its group that ``gives`` what it ``needs`` is done.
    """

    group_id: str
    kind: str  # whole | load | tile | diagonal | rows | reduce | finish
    flops: int = 0
    needs: tuple[Key, ...] = ()
    gives: tuple[Key, ...] = ()
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
        p, d = self.plan.n_patches, self.plan.dim
        together: Iterator[Task] = iter(())
        for group in sorted(self.plan.scored, key=lambda group: group.whole):
            yield from _pieces(group, p, d)
            if not group.whole:
                # A group is put together while the next one's pieces are made.
                yield from together
                together = _together(group, p)
        yield from together


def group_tasks(group: GroupPlan, p: int, d: int) -> Iterator[Task]:
    """The tasks of one group of images of ``p`` patches and ``d`` dimensions."""
    if group.schedule == "none":
        return iter(())
    return _pieces(group, p, d) if group.whole else chain(_pieces(group, p, d), _together(group, p))


def _pieces(group: GroupPlan, p: int, d: int) -> Iterator[Task]:
    if group.whole:
        stored = (group.images + group.prompts) * p * d * STORED_BYTES
        yield Task(group.group_id, "whole", group.flops, read_bytes=stored)
    elif group.schedule == "symmetric":
        yield from _loads(group.group_id, _sizes(group), p * d * STORED_BYTES)
        yield from _tiles(group, _sizes(group), p, d)
    else:
        yield from _row_blocks(group, _sizes(group), p, d)


def _together(group: GroupPlan, p: int) -> Iterator[Task]:
    if group.schedule == "symmetric":
        for row, size in enumerate(_sizes(group)):
            scores = size * p * SCORE_BYTES
            yield Task(
                group.group_id,
                "reduce",
                needs=(("row", row),),
                gives=(("scores", 0),),
                bytes_in=group.images * scores,
                bytes_out=scores,
            )
    yield Task(group.group_id, FINISH, needs=(("scores", 0),), bytes_in=group.images * p * SCORE_BYTES)


def _sizes(group: GroupPlan) -> list[int]:
    return [block.stop - block.start for block in group.blocks()]


def _loads(group_id: str, sizes: list[int], image: int) -> Iterator[Task]:
    for block, size in enumerate(sizes):
        stored = size * image
        yield Task(group_id, LOAD, gives=(("block", block),), read_bytes=stored, bytes_out=stored)


def _tiles(group: GroupPlan, rows: list[int], p: int, d: int) -> Iterator[Task]:
    image, pair = p * d * STORED_BYTES, p * SCORE_BYTES
    for a, b in group.tiles():
        if a == b:
            yield Task(
                group.group_id,
                "diagonal",
                flops=rows[a] * rows[a] * p * p * d,
                needs=(("block", a),),
                gives=(("row", a),),
                bytes_in=rows[a] * image,
                bytes_out=rows[a] * rows[a] * pair,
            )
        else:
            yield Task(
                group.group_id,
                "tile",
                flops=2 * rows[a] * rows[b] * p * p * d,
                needs=(("block", a), ("block", b)),
                gives=(("row", a), ("row", b)),
                bytes_in=(rows[a] + rows[b]) * image,
                bytes_out=2 * rows[a] * rows[b] * pair,
            )


def _row_blocks(group: GroupPlan, rows: list[int], p: int, d: int) -> Iterator[Task]:
    """One per row block, past which every reference block streams.

    A row block's images that are no references are loaded beside them; which they are is only known to the run, so
    they count as evenly distributed.
    """
    image, count = p * d * STORED_BYTES, math.ceil(group.references / group.block_images)
    columns = [group.references // count + (i < group.references % count) for i in range(count)]
    yield from _loads(group.group_id, columns, image)
    blocks = tuple(("block", block) for block in range(count))
    others, outside, start = 0, group.images - group.references + group.prompts, 0
    for row, size in enumerate(rows):
        start += size
        own = outside * start // group.images - others
        others += own
        key = ("block", count + row)
        if own:
            yield Task(group.group_id, LOAD, gives=(key,), read_bytes=own * image, bytes_out=own * image)
        yield Task(
            group.group_id,
            "rows",
            2 * size * group.references * p * p * d,
            needs=(*blocks, key) if own else blocks,
            gives=(("scores", 0),),
            bytes_in=(group.references + own) * image,
            bytes_out=size * p * SCORE_BYTES,
        )
