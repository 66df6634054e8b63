"""The one stream of work: every call that scoring a plan makes, in order. Pure: plan in, tasks out.

The run submits exactly these, the simulation plays exactly these, and the estimate adds up exactly these. FLOPs are
counted as `group_plan` counts them, 2 N R P² D and half of that for the symmetric schedule, so a diagonal tile of n
images counts n · n / 2 pairs: the kernel skips the n pairs of an image with itself and multiplies some others twice.
The tasks of a plan then add up to exactly `Plan.flops`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from patchead.plan.group_plan import flops_of
from patchead.plan.planned import GroupPlan, Plan
from patchead.scoring.memory_budget import SCORE_BYTES, STORED_BYTES

LOAD = "load"
PACK = "pack"
FINISH = "finish"
HELD = frozenset({"tile", "diagonal", "reduce", "query_block"})
"""Tasks whose results stay in the object store until their group is finished, and are lost with their node."""

PACKED_GROUPS, PACKED_FLOPS = 16, 10**12
"""Of one call, at most: groups that take longer are calls of their own. 10¹² take an H100 some 5 ms, as a call does."""
SMALL_FLOPS = 10**10
"""No pack is too large with so many: they take a core some 0.2 s, as long as to read and to stage 16 groups."""
_OF_WHAT_IS_LEFT = 4

Key = tuple[str, int]
"""A block of embeddings (``block``, number), a row of tiles (``row``, number), or all scores (``scores``, 0)."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Describe one call: a block that is loaded (kind `LOAD`, on any CPU of the cluster), or work for one actor.

    It starts when every task of its group that ``gives`` what it ``needs`` is done.
    """

    group_id: str
    kind: str  # whole | pack | load | tile | diagonal | query_block | reduce | finish
    blocks: tuple[int, ...] = ()
    """What it is about: a block that is loaded, the two of a tile, the one of a diagonal, reduction or query block."""
    flops: int = 0
    pace: float = 1.0
    """See `GroupPlan.pace`."""
    needs: tuple[Key, ...] = ()
    gives: tuple[Key, ...] = ()
    frees: tuple[Key, ...] = ()
    """What no later task needs: the object store may forget it once this task has it."""
    read_bytes: int = 0
    """From the lake."""
    bytes_in: int = 0
    """From the object store to the actor."""
    bytes_out: int = 0
    """From the actor to the object store."""
    parts: tuple[Task, ...] = ()
    """Of a pack: a task for each of its groups, done by one call, one after the other."""

    @property
    def name(self) -> str:
        """Name the task in counts and logs, e.g. ``night=2026-11-21/product=screw tile 0 2``."""
        numbers = self.blocks or ((len(self.parts),) if self.parts else ())
        return " ".join([self.group_id, self.kind, *map(str, numbers)])

    @property
    def moved_bytes(self) -> int:
        """Count the bytes into and out of the object store."""
        return self.bytes_in + self.bytes_out


@dataclass(frozen=True)
class PlannedTasks:
    """Yield every task of a plan, anew by each iteration, so that a plan of any size takes no memory."""

    plan: Plan

    def __iter__(self) -> Iterator[Task]:
        p, d = self.plan.n_patches, self.plan.dim
        together: Iterator[Task] = iter(())
        for group in self.plan.scored:
            if not group.whole:
                yield from _pieces(group, p, d)
                # A group is put together while the next one's pieces are made.
                yield from together
                together = _together(group, p)
        yield from _packed(self.plan)
        yield from together


def _packed(plan: Plan) -> Iterator[Task]:
    """Yield the groups that are whole; small ones, which stand behind each other, together: a call costs as much.

    A pack is no more than a quarter of what each actor still has to do by then: the last ones are short, and the
    actors end together. Tiny groups are always packed: they take less time to compare than to read and to
    stage. Where the plan is for no number of actors nothing is packed.
    """
    whole = [group for group in plan.scored if group.whole]
    left, pack, most = sum(group.flops for group in whole), list[Task](), 0
    for group in whole:
        full = len(pack) == PACKED_GROUPS or sum(task.flops for task in pack) + group.flops > most
        if pack and (full or not plan.actors):
            yield _as_one(pack)
            pack = []
        if not pack:
            most = max(SMALL_FLOPS, min(PACKED_FLOPS, left // (_OF_WHAT_IS_LEFT * max(plan.actors, 1))))
        pack += _pieces(group, plan.n_patches, plan.dim)
        left -= group.flops
    if pack:
        yield _as_one(pack)


def _as_one(parts: list[Task]) -> Task:
    if len(parts) == 1:
        return parts[0]
    flops = sum(part.flops for part in parts)
    return Task(
        group_id=parts[0].group_id,
        kind=PACK,
        flops=flops,
        pace=flops / sum(part.flops / part.pace for part in parts) if flops else 1.0,
        read_bytes=sum(part.read_bytes for part in parts),
        parts=tuple(parts),
    )


def group_tasks(group: GroupPlan, p: int, d: int) -> Iterator[Task]:
    """Yield the tasks of one group of images of ``p`` patches and ``d`` dimensions."""
    if group.schedule == "none":
        return iter(())
    return _pieces(group, p, d) if group.whole else chain(_pieces(group, p, d), _together(group, p))


def _pieces(group: GroupPlan, p: int, d: int) -> Iterator[Task]:
    if group.whole:
        stored = (group.images + group.prompts) * p * d * STORED_BYTES
        yield Task(group_id=group.group_id, kind="whole", flops=group.flops, pace=group.pace, read_bytes=stored)
    elif group.schedule == "symmetric":
        for block, size in enumerate(_sizes(group)):
            yield _load(group.group_id, block, size * p * d * STORED_BYTES)
        yield from _tiles(group, _sizes(group), p, d)
    else:
        yield from _query_blocks(group, p, d)


def _together(group: GroupPlan, p: int) -> Iterator[Task]:
    if group.schedule == "symmetric":
        for block, size in enumerate(_sizes(group)):
            scores = size * p * SCORE_BYTES
            given = scores + size * group.evidence_bytes
            yield Task(
                group_id=group.group_id,
                kind="reduce",
                blocks=(block,),
                needs=(("row", block),),
                gives=(("scores", 0),),
                frees=(("row", block),),
                bytes_in=group.images * scores,
                bytes_out=given,
            )
    everything = (("scores", 0),)
    size = group.images * (p * SCORE_BYTES + group.evidence_bytes)
    yield Task(group_id=group.group_id, kind=FINISH, needs=everything, frees=everything, bytes_in=size)


def _sizes(group: GroupPlan) -> list[int]:
    return [block.stop - block.start for block in group.blocks()]


def _load(group_id: str, block: int, stored: int) -> Task:
    return Task(
        group_id=group_id,
        kind=LOAD,
        blocks=(block,),
        gives=(("block", block),),
        read_bytes=stored,
        bytes_out=stored,
    )


def _tiles(group: GroupPlan, sizes: list[int], p: int, d: int) -> Iterator[Task]:
    image, pair = p * d * STORED_BYTES, p * SCORE_BYTES
    for a, b in group.tiles():
        if a == b:  # the last task that needs this block
            yield Task(
                group_id=group.group_id,
                kind="diagonal",
                blocks=(a,),
                flops=sizes[a] * sizes[a] * p * p * d,
                needs=(("block", a),),
                gives=(("row", a),),
                frees=(("block", a),),
                bytes_in=sizes[a] * image,
                bytes_out=sizes[a] * sizes[a] * pair,
            )
        else:
            yield Task(
                group_id=group.group_id,
                kind="tile",
                blocks=(a, b),
                flops=2 * sizes[a] * sizes[b] * p * p * d,
                needs=(("block", a), ("block", b)),
                gives=(("row", a), ("row", b)),
                bytes_in=(sizes[a] + sizes[b]) * image,
                bytes_out=2 * sizes[a] * sizes[b] * pair,
            )


def _query_blocks(group: GroupPlan, p: int, d: int) -> Iterator[Task]:
    """One per block of queries, past which every block of references streams.

    A query block's images that are no references are a block of their own; which they are is only known to the run,
    so their bytes count as evenly distributed.
    """
    image, count = p * d * STORED_BYTES, group.reference_blocks()
    for block in range(count):
        size = group.references // count + (block < group.references % count)
        yield _load(group.group_id, block, size * image)
    references = tuple(("block", block) for block in range(count))
    outside, start, counted = group.images - group.references + group.prompts, 0, 0
    sizes = _sizes(group)
    for number, size in enumerate(sizes):
        start += size
        own = outside * start // group.images - counted
        counted += own
        key = ("block", count + number)
        if outside:
            yield _load(group.group_id, count + number, own * image)
        needs = (*references, key) if outside else references
        last = number == len(sizes) - 1
        yield Task(
            group_id=group.group_id,
            kind="query_block",
            blocks=(number,),
            flops=flops_of(group, start, p, d) - flops_of(group, start - size, p, d),
            pace=group.pace,
            needs=needs,
            gives=(("scores", 0),),
            frees=needs if last else needs[count:],
            bytes_in=(group.references + own) * image,
            bytes_out=size * (p * SCORE_BYTES + group.evidence_bytes),
        )
