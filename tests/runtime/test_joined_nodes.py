"""A node joins amid a stage: its actors get calls and units, as many as there is room for and were asked for."""

from __future__ import annotations

import pyarrow as pa
import pytest
import ray

from patchead.runtime.joined_nodes import Growth
from patchead.runtime.lost_nodes import Stall
from patchead.runtime.pool import Pool
from patchead.runtime.ray_executor import RayExecutor
from tests.helpers.actors import Slow, doubled
from tests.helpers.second_node import second_node

ONE_EACH = Pool(size=1, num_cpus=1.75, num_gpus=0, threads=2, decode_cpus=0.25, grows=True)
"""One actor on each node of two CPUs."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("patchead.runtime.joined_nodes.LOOK_EVERY", 0.0)
    return []


@pytest.mark.parametrize(("asked", "grows", "more"), [(1, False, 0), (2, False, 1), (1, True, 1), (4, False, 1)])
def test_a_pool_grows_to_what_there_is_room_for_or_was_asked_for(
    local_ray: None, told: list[str], asked: int, grows: bool, more: int
) -> None:
    pool = Pool(size=asked, num_cpus=0.75, num_gpus=0, threads=1, decode_cpus=0.25, grows=grows)
    growth = Growth(pool, Stall(), told.append)
    assert growth.more(1) == more
    assert growth.more(2) == 0
    assert told == ["nodes have joined: going on with 2 actors in place of 1"] * more


def test_it_looks_once_in_a_while(local_ray: None) -> None:
    assert Growth(ONE_EACH, Stall(), pytest.fail).more(0) == 0


@pytest.mark.slow
def test_calls_go_to_the_actors_of_a_node_that_joins(local_ray: None, told: list[str]) -> None:
    executor = RayExecutor()
    executor.tell = told.append
    with executor.actors(Slow, 1, ONE_EACH) as actors:
        seen = [handle for _ in range(4) for handle in actors.call("where", results=1)]
        with second_node(2):
            while len(set(ray.get(seen))) < 2:
                seen += [handle for _ in range(4) for handle in actors.call("where", results=1)]
            actors.drain()
    assert told == ["nodes have joined: going on with 2 actors in place of 1"]


@pytest.mark.slow
def test_units_go_to_the_actors_of_a_node_that_joins(local_ray: None, told: list[str]) -> None:
    executor = RayExecutor()
    executor.tell = told.append
    units = pa.table({"value": range(60)})
    found = executor.map_units(units, doubled, Slow, 1, ONE_EACH)
    rows = [next(found)]
    with second_node(2):
        rows += found
    rows = pa.concat_tables(rows)
    assert sorted(rows["value"].to_pylist()) == [2 * value for value in range(60)]
    assert len(set(rows["node"].to_pylist())) == 2
    assert told == ["nodes have joined: going on with 2 actors in place of 1"]
