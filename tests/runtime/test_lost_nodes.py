"""A node is killed: work goes on with fewer actors and says so, or ends with the reason; it never waits for ever."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
import ray

from patchead.errors import LostNodesError, WorkerError
from patchead.runtime.lost_nodes import Stall, room, with_room
from patchead.runtime.pool import Pool, PoolRequest
from patchead.runtime.ray_executor import RayExecutor
from tests.helpers.actors import Adder, doubled
from tests.helpers.second_node import second_node

LARGE = Pool(size=2, num_cpus=1.75, num_gpus=0, threads=2, decode_cpus=0.25)  # one on each node


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("patchead.runtime.lost_nodes.PATIENCE", 1.0)
    return []


def test_a_pool_is_as_large_as_there_is_room(local_ray: None, told: list[str]) -> None:
    assert room(LARGE) == 1
    assert with_room(LARGE, 0, told.append).size == 1
    assert told == ["warning: nodes were lost: going on with 1 of 2 actors"]
    assert room(Pool(size=1, num_cpus=0.25, num_gpus=1, threads=1, decode_cpus=0.75)) == 0


def test_without_room_the_reason_is_told(local_ray: None, told: list[str]) -> None:
    executor = RayExecutor()
    executor.tell = told.append
    executor.pools(PoolRequest(cpus_per_actor=1, wait_minutes=0.01))
    large = Pool(size=1, num_cpus=99.75, num_gpus=0, threads=100, decode_cpus=0.25)
    with pytest.raises(WorkerError, match=r"no node has room for an actor any more \(100 CPUs and 0 GPUs\).*same run"):
        list(executor.map_units(pa.table({"value": [1]}), doubled, Adder, 1, large))
    reason = r"none came in the 0\.01 minutes of resources\.wait_minutes"
    with pytest.raises(WorkerError, match=reason), executor.actors(Adder, 1, large):
        pass
    assert told == ["warning: no node has room for an actor any more; waiting up to 0.01 minutes for one"] * 2


def test_calls_to_an_actor_of_a_lost_node_end_and_are_made_again_by_fewer(local_ray: None, told: list[str]) -> None:
    executor = RayExecutor()
    executor.tell = told.append
    with second_node(2) as kill:
        with pytest.raises(LostNodesError), executor.actors(Adder, 1, LARGE) as actors:
            where = [handle for _ in range(4) for handle in actors.call("who", results=2)]
            assert len({ray.get(pid) for pid in where[::2]}) == 2
            kill()
            for _ in range(4):  # the other actor does its own; leaving waits for those of the lost one
                actors.call("add", 1, results=1)
        with executor.actors(Adder, 1, LARGE) as actors:
            (found,) = actors.call("add", 1, results=1)
    assert ray.get(found) == 2
    assert told == ["warning: nodes were lost: going on with 1 of 2 actors"]


def test_a_slow_result_is_no_stall_while_every_node_is_there(local_ray: None, told: list[str]) -> None:
    stall, begun = Stall(), time.monotonic()
    assert stall.first([slow.remote()]) is not None
    assert time.monotonic() - begun > 2.5


@ray.remote(num_cpus=0.1)
def slow() -> None:
    time.sleep(3)
