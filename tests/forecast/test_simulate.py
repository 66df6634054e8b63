"""The simulation against makespans worked out by hand; one FLOP is one second."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchead.errors import SettingsError
from patchead.forecast.cluster import Cluster, Disturbances
from patchead.forecast.simulate import simulate
from patchead.forecast.simulate_report import even_groups
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.planned import GroupPlan, Plan
from patchead.plan.tasks import PlannedTasks, Task
from tests.helpers.figures import figures

ROW = ("row", 0)


def cluster(actors: int = 1, per_node: int = 1, **changes: object) -> Cluster:
    return Cluster(actors=actors, actors_per_node=per_node, figures=figures(**changes), precision="fp32")


def wholes(*seconds: int) -> list[Task]:
    return [Task(group_id=f"g{i}", kind="whole", flops=work) for i, work in enumerate(seconds)]


def test_one_actor_takes_the_sum() -> None:
    done = simulate(wholes(5, 3, 2), cluster())
    assert (done.makespan, done.busy, done.utilisation, done.tasks, done.redone) == (10, 10, 1, 3, 0)


def test_overhead_start_and_bytes_are_added() -> None:
    task = Task(group_id="g", kind="whole", flops=4, read_bytes=30, bytes_in=5, bytes_out=15)
    slow = cluster(task_seconds=0.5, start_seconds=7.0, read_bytes=10.0, network_bytes=20.0)
    assert simulate([task], slow).makespan == 7 + 0.5 + 4 + 3 + 1


def test_actors_of_one_node_share_its_rates() -> None:
    task = Task(group_id="g", kind="whole", read_bytes=30)
    assert simulate([task], cluster(2, 2, read_bytes=10.0)).makespan == 6
    assert simulate([task], cluster(2, 1, read_bytes=10.0)).makespan == 3


def test_crowded_actors_are_slower() -> None:
    rates = {"flops": {"fp32": 1.0}, "flops_alone": {"fp32": 2.0}, "actors_per_node": 3}
    assert [simulate(wholes(12), cluster(actors, 3, **rates)).makespan for actors in (1, 2, 3)] == [6, 8, 12]


def test_two_actors_take_what_the_list_gives_them() -> None:
    """The first four go a, b, a, b. Then b is the first to end a call and gets the fifth, and in the second case also
    the sixth: 5 + 3 beside 4 + 3 + 3, and 7 + 2 beside 4 + 2 + 1 + 1."""
    assert simulate(wholes(5, 4, 3, 3, 3), cluster(2)).makespan == 10
    assert simulate(wholes(7, 4, 2, 2, 1, 1), cluster(2)).makespan == 9


def test_a_call_waits_behind_the_one_that_runs_on_its_actor() -> None:
    """Two in flight: the third task is a's already while a still works at the first."""
    assert simulate(wholes(10, 1, 1), cluster(2)).makespan == 11


def tiles(*seconds: int, group: str = "g") -> list[Task]:
    return [Task(group_id=group, kind="tile", flops=work, gives=(ROW,)) for work in seconds]


def test_a_reduction_waits_for_its_row() -> None:
    done = simulate([*tiles(4, 2), Task(group_id="g", kind="reduce", flops=3, needs=(ROW,))], cluster(2))
    assert (done.makespan, done.busy) == (7, 9)


def test_a_tile_waits_for_its_blocks() -> None:
    """One reader, 5 s a block: the first block is there at 5, the second at 10."""
    blocks = (("block", 0), ("block", 1))
    loads = [Task(group_id="g", kind="load", gives=(block,), read_bytes=50) for block in blocks]
    work = [
        Task(group_id="g", kind="diagonal", flops=1, needs=blocks[:1]),
        Task(group_id="g", kind="tile", flops=1, needs=blocks),
    ]
    done = simulate([*loads, *work], cluster(read_bytes=10.0))
    assert (done.makespan, done.read_bytes, done.busy) == (11, 100, 2)


def test_a_lost_node_does_its_call_again_when_it_is_back() -> None:
    """Two nodes of one actor, four calls of 4 s, undisturbed 8 s. Node 1 goes at 6 s, in its second call; back at 9."""
    done = simulate(wholes(4, 4, 4, 4), cluster(2), Disturbances(lose_at=0.75, restart_seconds=3.0))
    assert (done.makespan, done.redone) == (13, 1)
    assert done.busy == 16 + 2
    assert done.tasks == 4


def test_results_that_a_lost_node_held_are_made_again() -> None:
    """Six tiles of 2 s on two nodes end at 6 s; lost at 5 s, node 1 had finished two and was in the third."""
    lost = Disturbances(lose_at=5 / 6, restart_seconds=1.0)
    done = simulate(tiles(*[2] * 6), cluster(2), lost)
    assert (done.redone, done.makespan) == (3, 6 + 3 * 2)
    # Whole groups are in the lake once they are done.
    assert simulate(wholes(*[2] * 6), cluster(2), lost).redone == 1


def test_results_are_held_no_longer_than_their_group() -> None:
    """The tiles' group ends at 3 s on node 0. Node 1 goes at 4.5 of 9 s, in the first of its two whole groups."""
    tasks = [*tiles(2, 2), Task(group_id="g", kind="finish", flops=1, needs=(ROW,)), *wholes(3, 3, 3, 3)]
    assert simulate(tasks, cluster(2)).makespan == 9
    assert simulate(tasks, cluster(2), Disturbances(lose_at=0.5, restart_seconds=0.0)).redone == 1


def test_a_reduction_waits_for_a_tile_that_is_made_again() -> None:
    """Tiles of 2 and 4 s on two nodes, then a reduction of 2 s on node 0 at 4 s. Node 1 goes at 3 s, is back at 5,
    and its tile ends at 9."""
    work = [*tiles(2, 4), Task(group_id="g", kind="reduce", flops=2, needs=(ROW,))]
    assert simulate(work, cluster(2)).makespan == 6
    done = simulate(work, cluster(2), Disturbances(lose_at=0.5, restart_seconds=2.0))
    assert (done.makespan, done.redone) == (11, 1)


def test_the_only_node_may_go() -> None:
    done = simulate(wholes(4, 4), cluster(), Disturbances(lose_at=0.75, restart_seconds=1.0))
    assert (done.makespan, done.redone) == (6 + 1 + 4, 1)


def test_every_call_slow_is_all_times_the_slowdown() -> None:
    assert simulate(wholes(5, 3, 2), cluster(), Disturbances(stragglers=1.0, slowdown=3.0)).makespan == 30


@given(
    work=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    fractions=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 100),
)
def test_more_stragglers_never_help_one_actor(work: list[int], fractions: tuple[float, float], seed: int) -> None:
    few, many = (
        simulate(wholes(*work), cluster(), Disturbances(stragglers=f, slowdown=2.0, seed=seed))
        for f in sorted(fractions)
    )
    assert sum(work) <= few.makespan <= many.makespan <= 2 * sum(work)


@given(work=st.lists(st.integers(1, 20), min_size=1, max_size=30), actors=st.integers(1, 6), lose=st.booleans())
def test_the_makespan_is_within_its_bounds(work: list[int], actors: int, lose: bool) -> None:
    disturbances = Disturbances(
        stragglers=0.2, slowdown=2.0, lose_at=0.5 if lose else None, restart_seconds=5.0, seed=3
    )
    done, again = (simulate(wholes(*work), cluster(actors, 2), disturbances) for _ in range(2))
    assert done == again
    assert done.tasks == len(work)
    assert max(*work, sum(work) / actors) <= done.makespan
    assert done.utilisation <= 1


def test_the_cost_is_that_of_all_actors_until_the_end() -> None:
    done = simulate(wholes(3600, 3600, 3600), cluster(2))
    assert (done.makespan, done.cost(2.5)) == (7200, 2 * 2 * 2.5)
    assert done.utilisation == 0.75


def test_nothing_to_do_takes_no_time() -> None:
    done = simulate([], cluster(start_seconds=5.0))
    assert (done.makespan, done.utilisation) == (0, 0)


def test_a_plan_in_blocks_by_hand() -> None:
    """Four images in blocks of two, P = D = 1: diagonals of 4, a tile of 8 FLOPs, 2 reduce, finish."""
    plan = Plan(
        (GroupPlan(group_id="g", images=4, references=4, schedule="symmetric", block_images=2, flops=16),), 1, 1
    )
    done = simulate(PlannedTasks(plan), cluster(task_seconds=1.0))
    # The first block is there after 1 s; each of the six calls costs 1 s more than its FLOPs.
    assert done.makespan in (1 + 16 + 6, 2 + 16 + 6)
    assert done.busy == 16 + 6
    assert done.tasks == 2 + 6


@pytest.mark.parametrize(("size", "least"), [(200, 5_000), (20_000, 1_000)])
def test_a_million_images_are_simulated_in_seconds(size: int, least: int) -> None:
    limits = Limits(memory_bytes=4 * 10**9, precision="fp16", actors=64)
    began = time.process_time()
    plan = make_plan(even_groups(1_000_000, size), 256, 384, limits)
    done = simulate(
        PlannedTasks(plan),
        Cluster(actors=64, actors_per_node=8, figures=figures(flops={"fp16": 1e14}), precision="fp16"),
        Disturbances(stragglers=0.05, slowdown=2.0, lose_at=0.5, seed=1),
    )
    assert done.tasks >= least
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"stragglers": 1.5}, "--stragglers"),
        ({"stragglers": float("nan")}, "--stragglers"),
        ({"slowdown": 0.5}, "--slowdown"),
        ({"lose_at": -0.1}, "lose_at"),
        ({"restart_seconds": -1.0}, "restart_seconds"),
    ],
)
def test_a_scenario_out_of_range_is_refused(wrong: dict[str, float], name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Disturbances(**wrong)


def test_a_cluster_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--gpus must be at least 1; got 0"):
        cluster(0)
    with pytest.raises(SettingsError, match="--gpus-per-node"):
        cluster(1, 0)
