"""A large group cut into blocks: the calls that score its pieces, and those that put them together.

Each block is read once from the lake and shared through the object store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import ray

from patchead.nightly.group import Group
from patchead.plan.group_plan import GroupPlan
from patchead.runtime.dispatch import Submit

Job = tuple[str | None, Submit]
"""The group that is finished by this call, if it is the last one of a group, and the call."""
Load = Callable[[ray.ObjectRef, np.ndarray], ray.ObjectRef]
"""Reads the embeddings of some images of a group into the object store."""


def cut(plan: GroupPlan, group: Group, panel: np.ndarray | None, load: Load) -> tuple[Iterator[Job], Iterator[Job]]:
    """The calls for the pieces of a group, and, once those are submitted, the calls that put them together."""
    kind = _symmetric if plan.schedule == "symmetric" else partial(_row_stationary, panel=panel)
    parts: list[ray.ObjectRef] = [None] * len(plan.blocks())
    handle = ray.put(group)
    pieces, together = kind(plan, handle, parts, load)

    def finish(actor: Any) -> ray.ObjectRef:
        return actor.finish.remote(f"{plan.group_id} finish", handle, *parts)

    def then() -> Iterator[Job]:
        yield from together
        yield plan.group_id, finish

    return pieces, then()


def _symmetric(
    plan: GroupPlan, group: ray.ObjectRef, parts: list[ray.ObjectRef], load: Load
) -> tuple[Iterator[Job], Iterator[Job]]:
    """Tiles of two blocks each, both directions at once; then each row of tiles is reduced."""
    blocks = plan.blocks()
    columns = [np.arange(block.start, block.stop) for block in blocks]
    row: list[dict[int, ray.ObjectRef]] = [{} for _ in blocks]

    def tile(loaded: list[ray.ObjectRef], a: int, b: int, actor: Any) -> ray.ObjectRef:
        name = f"{plan.group_id} tile {a} {b}"
        if a == b:
            done, row[a][a] = actor.diagonal.options(num_returns=2).remote(name, loaded[a])
        else:
            done, row[a][b], row[b][a] = actor.tile.options(num_returns=3).remote(name, loaded[a], loaded[b])
        return done

    def reduce(i: int, actor: Any) -> ray.ObjectRef:
        name, others = f"{plan.group_id} rows {i}", [columns[j] for j in row[i]]
        call = actor.reduce.options(num_returns=2)
        done, parts[i] = call.remote(name, group, blocks[i], others, *row[i].values())
        row[i].clear()  # its tiles may leave the object store once they are reduced
        return done

    def tiles() -> Iterator[Job]:
        loaded = [load(group, column) for column in columns]
        for a, b in plan.tiles():
            yield None, partial(tile, loaded, a, b)

    return tiles(), ((None, partial(reduce, i)) for i in range(len(blocks)))


def _row_stationary(
    plan: GroupPlan, group: ray.ObjectRef, parts: list[ray.ObjectRef], load: Load, panel: np.ndarray | None
) -> tuple[Iterator[Job], Iterator[Job]]:
    """Row blocks, past each of which all references stream; there is nothing to put together."""
    references = np.arange(plan.images) if panel is None else panel
    columns = np.array_split(references, math.ceil(len(references) / plan.block_images))

    def rows(i: int, block: slice, loaded: list[ray.ObjectRef], actor: Any) -> ray.ObjectRef:
        others = np.setdiff1d(np.arange(block.start, block.stop), references)
        own = load(group, others) if len(others) else None
        call = actor.rows.options(num_returns=2)
        done, parts[i] = call.remote(f"{plan.group_id} rows {i}", group, block, columns, loaded, others, own)
        return done

    def row_blocks() -> Iterator[Job]:
        loaded = [load(group, column) for column in columns]
        for i, block in enumerate(plan.blocks()):
            yield None, partial(rows, i, block, loaded)

    return row_blocks(), iter(())
