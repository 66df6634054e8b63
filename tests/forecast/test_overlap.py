"""Both schedules of a night, simulated: hand-made cases, and that overlapping wins what decoding leaves idle."""

from __future__ import annotations

import pytest

from patchead.forecast.cluster import Cluster
from patchead.forecast.device_speeds import named
from patchead.forecast.overlap import Feed, schedules
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.planned import GroupPlan, Plan

FIGURES = named("H100").model_copy(update={"task_seconds": 1.0, "start_seconds": 0.0})


def plan(*sizes: int, block: int | None = None) -> Plan:
    groups = [
        GroupPlan(group_id=f"g{n}", images=size, references=size, schedule="symmetric", block_images=block or size)
        for n, size in enumerate(sizes)
    ]
    return Plan(tuple(groups), 1, 1)


def cluster(actors: int) -> Cluster:
    return Cluster(actors=actors, actors_per_node=actors, figures=FIGURES, precision="fp16")


def test_each_group_is_scored_when_its_images_have_come() -> None:
    """Ten images a second, half of the GPU left: a call of 1 s takes 2, and only the last waits for the end."""
    found = schedules(plan(30, 20, 10), cluster(1), Feed(decoded=10, embedded=20))
    assert found.staged == pytest.approx(6 + 3)
    # From 3 s to 5, from 5 on: half a second's work by second 6, and half a second more; the third one behind it.
    assert (found.overlapped, found.meanwhile) == (pytest.approx(6.5 + 1), 2)


def test_where_the_encoder_is_the_slower_one_calls_end_behind_it() -> None:
    found = schedules(plan(30, 20, 10), cluster(2), Feed(decoded=100, embedded=10))
    assert (found.staged, found.overlapped, found.meanwhile) == (pytest.approx(6 + 2), pytest.approx(7 + 1), 2)


def test_groups_in_tiles_wait_for_the_stage() -> None:
    found = schedules(plan(30, 20, block=5), cluster(2), Feed(decoded=10, embedded=20))
    assert (found.meanwhile, found.overlapped) == (0, found.staged)


def test_many_groups_on_gpus_that_wait_for_decoding() -> None:
    sizes = [(f"g{n:03d}", size) for n, size in enumerate(range(3, 303))]
    four = Cluster(actors=4, actors_per_node=4, figures=named("H100"), precision="fp16")
    night = make_plan(sizes, 256, 384, Limits(memory_bytes=16 * 10**9, actors=4))
    found = schedules(night, four, Feed(decoded=1000, embedded=4000))
    assert found.meanwhile > 200
    assert found.overlapped < 0.9 * found.staged
