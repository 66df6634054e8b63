"""Tasks of a plan: their sums are the plan's, their counts are those of the schedules."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.peak_memory import peak_bytes
from patchead.plan.planned import GroupPlan, Plan, PromptCounts
from patchead.plan.tasks import LOAD, PACKED_FLOPS, PACKED_GROUPS, SMALL_FLOPS, PlannedTasks, group_tasks

P, D = 3, 5
IMAGE = P * D * 2
LIMITS = Limits(memory_bytes=4 * 10**9)


def group(images: int, block: int, schedule: str, references: int | None = None) -> GroupPlan:
    return GroupPlan(
        group_id="g", images=images, references=references or images, schedule=schedule, block_images=block
    )


def kinds(tasks) -> list[str]:
    return [task.kind for task in tasks]


def test_a_whole_group_is_one_task_that_reads_its_embeddings() -> None:
    whole = dataclasses.replace(group(7, 7, "symmetric"), flops=7 * 7 * P * P * D)
    (task,) = group_tasks(whole, P, D)
    assert (task.kind, task.flops, task.read_bytes, task.moved_bytes) == ("whole", 7 * 7 * P * P * D, 7 * IMAGE, 0)


def test_symmetric_blocks_are_loaded_once_tiled_reduced_and_finished() -> None:
    """Five images in blocks of two: 2, 2, 1."""
    tasks = list(group_tasks(group(5, 2, "symmetric"), P, D))
    assert kinds(tasks)[:3] == [LOAD] * 3
    assert sorted(kinds(tasks)[3:]) == sorted(["diagonal"] * 3 + ["tile"] * 3 + ["reduce"] * 3 + ["finish"])
    assert sum(task.read_bytes for task in tasks) == 5 * IMAGE
    tiles = {tuple(block for _, block in task.needs): task for task in tasks if task.kind == "tile"}
    assert tiles[0, 2].flops == 2 * (2 * 1) * P * P * D
    assert tiles[0, 2].bytes_in == 3 * IMAGE
    assert tiles[0, 2].bytes_out == 2 * (2 * 1 * P) * 4
    diagonals = {task.needs[0][1]: task for task in tasks if task.kind == "diagonal"}
    assert diagonals[0].flops == 2 * 2 * P * P * D
    assert diagonals[2].bytes_out == 1 * 1 * P * 4
    reductions = [task for task in tasks if task.kind == "reduce"]
    # What the tiles put into the object store, the reductions take out of it.
    strip = sum(task.bytes_out for task in [*tiles.values(), *diagonals.values()])
    assert sum(task.bytes_in for task in reductions) == strip == 5 * 5 * P * 4
    assert sum(task.bytes_out for task in reductions) == tasks[-1].bytes_in == 5 * P * 4


def test_row_blocks_take_every_reference_and_their_own_images() -> None:
    """Five images in blocks of two against a panel of three, which is cut into 2 and 1."""
    tasks = list(group_tasks(group(5, 2, "row_stationary", references=3), P, D))
    assert kinds(tasks) == [LOAD, LOAD, *[LOAD, "query_block"] * 3, "finish"]
    loads = {task.gives: task.read_bytes for task in tasks if task.kind == LOAD}
    # The two images outside of the panel are counted with the second and the third row block.
    assert list(loads.values()) == [2 * IMAGE, 1 * IMAGE, 0, IMAGE, IMAGE]
    rows = [task for task in tasks if task.kind == "query_block"]
    assert [task.flops for task in rows] == [2 * size * 3 * P * P * D for size in (2, 2, 1)]
    assert [task.bytes_in for task in rows] == [3 * IMAGE, 4 * IMAGE, 4 * IMAGE]
    assert [len(task.needs) for task in rows] == [3, 3, 3]


def test_every_image_is_read_once_by_row_blocks_without_a_panel() -> None:
    tasks = list(group_tasks(group(5, 2, "row_stationary"), P, D))
    assert kinds(tasks) == [LOAD, LOAD, LOAD, "query_block", "query_block", "query_block", "finish"]
    assert sum(task.read_bytes for task in tasks) == 5 * IMAGE


def test_too_few_images_are_no_task() -> None:
    assert list(group_tasks(group(3, 3, "none"), P, D)) == []


def test_a_group_is_put_together_while_the_next_ones_pieces_are_made() -> None:
    small = dataclasses.replace(group(3, 3, "symmetric"), group_id="small")
    plan = Plan((small, group(4, 2, "symmetric"), dataclasses.replace(group(4, 2, "symmetric"), group_id="h")), P, D)
    tasks = list(PlannedTasks(plan))
    pieces = [LOAD] * 2 + ["tile"] + ["diagonal"] * 2
    together = ["reduce"] * 2 + ["finish"]
    assert sorted(kinds(tasks)[:5]) == sorted(pieces)
    assert [task.group_id for task in tasks] == ["g"] * 5 + ["h"] * 5 + ["g"] * 3 + ["small"] + ["h"] * 3
    assert kinds(tasks)[10:] == [*together, "whole", *together]
    assert list(PlannedTasks(plan)) == tasks


@pytest.mark.parametrize("actors", [1, 2, 8])
def test_small_groups_share_calls_the_last_ones_are_short_and_none_is_lost(actors: int) -> None:
    rng = np.random.default_rng(0)
    sizes = [(f"g{number:03d}", int(size)) for number, size in enumerate(rng.integers(5, 31, 300))]
    plan = make_plan(sizes, 256, 384, dataclasses.replace(LIMITS, actors=actors))
    tasks = list(PlannedTasks(plan))
    parts = [part for task in tasks for part in (task.parts or (task,))]
    assert [part.group_id for part in parts] == [planned.group_id for planned in plan.scored]
    assert [part.flops for part in parts] == sorted((part.flops for part in parts), reverse=True)
    assert len(tasks) < 300 / 1.3
    assert max(len(task.parts) for task in tasks) <= PACKED_GROUPS
    left = plan.flops
    for task in tasks:
        assert task.flops == sum(part.flops for part in task.parts) or not task.parts
        assert task.flops <= max(SMALL_FLOPS, min(PACKED_FLOPS, left / (4 * actors))) or not task.parts
        left -= task.flops
    assert len({task.name for task in tasks}) == len(tasks)


def test_tiny_groups_are_packed_to_the_last_one() -> None:
    sizes = [(f"g{number:03d}", 3 + number // 10) for number in range(300)]
    plan = make_plan(sizes, 16, 64, dataclasses.replace(LIMITS, min_batch=3, actors=2))
    assert [len(task.parts) for task in PlannedTasks(plan)] == [PACKED_GROUPS] * 18 + [12]


def test_large_groups_are_calls_of_their_own() -> None:
    plan = make_plan([(f"g{number:03d}", 100) for number in range(60)], 1024, 384, LIMITS)
    assert kinds(PlannedTasks(plan)) == ["whole"] * 60


def test_what_is_needed_is_given_before() -> None:
    for schedule in ("symmetric", "row_stationary"):
        given: set[tuple[str, int]] = set()
        for task in group_tasks(group(7, 2, schedule, references=7), P, D):
            assert set(task.needs) <= given
            assert set(task.frees) <= set(task.needs)
            given = given - set(task.frees) | set(task.gives)
        assert not given  # at its end the object store holds nothing of the group


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=5),
    actors=st.integers(1, 8),
    schedule=st.sampled_from(["auto", "row_stationary"]),
    panel=st.none() | st.integers(5, 50),
    prompts=st.none() | st.integers(1, 20),
)
def test_tasks_add_up_to_the_plan(
    sizes: list[int], actors: int, schedule: str, panel: int | None, prompts: int | None
) -> None:
    limits = dataclasses.replace(LIMITS, actors=actors, schedule=schedule, max_references=panel)
    groups = [(f"g{i}", n) for i, n in enumerate(sizes)]
    counts = None if prompts is None else {name: PromptCounts(2 * prompts, prompts) for name, _ in groups}
    plan = make_plan(groups, 16, 8, limits, counts)
    tasks = list(PlannedTasks(plan))
    assert sum(task.flops for task in tasks) == plan.flops
    calls = sum(len(task.parts) or task.kind not in (LOAD, "reduce", "finish") for task in tasks)
    assert calls == sum(planned.matching_tasks for planned in plan.scored)


def test_an_actor_never_holds_more_than_embeddings_and_budget() -> None:
    for memory in (2 * 10**8, 4 * 10**9):
        limits = dataclasses.replace(LIMITS, memory_bytes=memory)
        for planned in make_plan([("a", 100), ("b", 1000)], 256, 384, limits).groups:
            assert 0 < peak_bytes(planned, 256, 384, limits) <= planned.images * 256 * 384 * 2 + memory


def test_the_peak_grows_with_the_group_and_is_nothing_for_none() -> None:
    peaks = [peak_bytes(make_plan([("a", n)], 64, 32, LIMITS).groups[0], 64, 32, LIMITS) for n in (4, 10, 50, 200)]
    assert peaks[0] == 0
    assert all(a < b for a, b in pairwise(peaks))


@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_blocks_lower_the_peak(schedule: str) -> None:
    whole, blocks = group(400, 400, schedule), group(400, 50, schedule)
    assert peak_bytes(blocks, 256, 384, LIMITS) < peak_bytes(whole, 256, 384, LIMITS)
