"""Both executors keep the same promises: tasks, values, actors that are set up, units; and errors as themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pyarrow as pa
import pytest
import ray

from patchead.errors import LakeError, SettingsError
from patchead.runtime.dispatch import within_a_node
from patchead.runtime.executor import Executor
from patchead.runtime.inline_executor import InlineExecutor
from patchead.runtime.pool import Pool, PoolRequest
from patchead.runtime.ray_executor import RayExecutor
from tests.helpers.actors import Adder, but_one, doubled, twice

POOL = Pool(size=2, num_cpus=0.5, num_gpus=0, threads=1, decode_cpus=0.25)


@pytest.fixture(scope="module")
def on_ray(local_ray: None) -> Iterator[RayExecutor]:
    """Actors that one test leaves to the next: each start of a process takes a second."""
    executor = RayExecutor(keep_actors=True)
    yield executor
    executor.close()


@pytest.fixture(params=[InlineExecutor, RayExecutor])
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.getfixturevalue("on_ray") if request.param is RayExecutor else request.param()


def values_of(executor: Executor, handles: list[object]) -> list[object]:
    return list(executor.stream(handles))


def test_every_item_is_worked_on_once(executor: Executor) -> None:
    assert dict(executor.run_tasks(twice, [3, 1, 2])) == {0: 6, 1: 2, 2: 4}
    assert executor.on_every_node(dict) == [{}]


def test_an_item_that_fails_ends_all_or_is_told_and_the_others_go_on(executor: Executor) -> None:
    with pytest.raises(LakeError, match=r"^no such item$"):
        list(executor.run_tasks(but_one, [3, 1, 2]))
    told: dict[int, str] = {}
    found = executor.run_tasks(but_one, [3, 1, 2], failed=lambda place, error: told.update({place: str(error)}))
    assert dict(found) == {0: 3, 2: 2}
    assert told == {1: "no such item"}


def test_values_go_from_call_to_call_by_their_handles(executor: Executor) -> None:
    done: list[str] = []
    with executor.actors(Adder, 10, POOL) as actors:
        (one,) = actors.call("add", executor.put(1), results=1, done=lambda: done.append("one"))
        up, down = actors.call("both", one, results=2)
        twofold = executor.submit(twice, up, num_cpus=0.25)
        (total,) = actors.call("total", executor.stream([one, up, down, twofold]), results=1)
        assert actors.call("nothing") == []
    assert values_of(executor, [one, up, down, twofold, total]) == [11, 21, 1, 42, 75]
    assert done == ["one"]


def test_an_error_of_an_actor_arrives_as_itself(executor: Executor) -> None:
    with pytest.raises(LakeError, match=r"^no such lake$"), executor.actors(Adder, 1, POOL) as actors:
        actors.call("fail", "no such lake")
    with pytest.raises(LakeError, match=r"^cannot add -1$"), executor.actors(Adder, -1, POOL) as actors:
        actors.call("add", 1, results=1)


@pytest.mark.parametrize("executor", [InlineExecutor, pytest.param(RayExecutor, marks=pytest.mark.slow)], indirect=True)
def test_units_go_through_a_function_and_an_actor(executor: Executor) -> None:
    units = pa.table({"value": [1, 2, 3, 4, 5]})
    found = pa.concat_tables(executor.map_units(units, doubled, Adder, 100, POOL))
    assert sorted(found["sum"].to_pylist()) == [102, 104, 106, 108, 110]
    assert list(executor.map_units(units.slice(0, 0), doubled, Adder, 100, POOL)) == []


def test_counts_of_a_call_counter(executor: Executor) -> None:
    counter = executor.call_counter()
    counter.began("tile 0 1")
    counter.began("tile 0 1")
    assert counter.tasks() == ["tile 0 1"]
    assert counter.summary()["tasks_redone"] == 1


def test_kept_actors_are_set_up_again(on_ray: RayExecutor) -> None:
    executor, seen = on_ray, list[object]()
    for amount in (1, 2, 2):
        with executor.actors(Adder, amount, POOL) as actors:
            for _ in range(6):
                seen += actors.call("who", results=2)
            assert actors.call("add", 1, results=1)
    pids, setups = values_of(executor, seen[::2]), values_of(executor, seen[1::2])
    assert len(set(pids)) == POOL.size
    for pid in set(pids):  # one set-up for each stage, not for each call
        assert len({times for one, times in zip(pids, setups, strict=True) if one == pid}) == 3


def test_a_killed_actor_is_set_up_when_it_is_back(local_ray: None) -> None:
    executor = RayExecutor()
    with executor.actors(Adder, 5, Pool(size=1, num_cpus=0.5, num_gpus=0, threads=1, decode_cpus=0.25)) as actors:
        first = actors.call("who", results=2)
        pid = values_of(executor, first)[0]
        os.kill(int(str(pid)), signal.SIGKILL)
        (after,) = actors.call("add", 1, results=1)
        (again, _) = actors.call("who", results=2)
    assert values_of(executor, [after]) == [6]
    assert values_of(executor, [again]) != [pid]


def test_actors_are_spared_ray_data(on_ray: RayExecutor) -> None:
    executor = on_ray
    with executor.actors(Adder, 5, POOL) as actors:
        found = [*actors.call("imports", "ray.data", results=1), *actors.call("imports", "torch", results=1)]
    assert values_of(executor, found) == [False, False]  # each takes a second or more of a start


def test_one_process_has_no_room_for_a_cluster() -> None:
    embed, score = InlineExecutor().pools(PoolRequest(device="cpu", cpus_per_actor=1))
    assert embed == score
    assert (embed.size, embed.threads, embed.device) == (1, 1, "cpu")
    with pytest.raises(SettingsError, match=r"resources.score_actors is 3, but --local works in one process"):
        InlineExecutor().pools(PoolRequest(score_actors=3))


@pytest.mark.parametrize("asked", [{"gpus_per_actor": 1.0}, {"gpus_per_actor": 0.5}, {"expect_gpus": 1}])
def test_one_process_does_without_no_gpu_that_was_asked_for(asked: dict[str, float]) -> None:
    (name,) = asked
    with pytest.raises(SettingsError, match=rf"resources\.{name} is .*, but --local finds no GPU here"):
        InlineExecutor().pools(PoolRequest(device="cpu", **asked))
    assert InlineExecutor().pools(PoolRequest(device="cpu", gpus_per_actor=0, expect_gpus=None))[0].device == "cpu"


def test_one_process_takes_no_more_threads_than_cores() -> None:
    (pool, _) = InlineExecutor().pools(PoolRequest(device="cpu", cpus_per_actor=1000))
    assert pool.threads == os.cpu_count()


def test_a_function_that_is_submitted_often_is_sent_to_the_cluster_once(local_ray: None) -> None:
    def sent() -> int:
        return len(ray.experimental.internal_kv._internal_kv_list(b"RemoteFunction:", namespace=b"fun"))

    executor = RayExecutor()
    handles = [executor.submit(twice, 1, num_cpus=0.3)]
    before = sent()
    handles += [executor.submit(twice, value, num_cpus=0.3) for value in range(5)]
    assert values_of(executor, handles) == [2, 0, 2, 4, 6, 8]
    assert sent() == before > 0


@pytest.mark.slow
def test_a_task_reserves_its_memory_and_never_more_than_there_is(local_ray: None) -> None:
    nodes = max(int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"])
    assert within_a_node(0) is None
    assert within_a_node(1000) == 1000
    assert within_a_node(nodes * 10) == nodes // 2
    units = pa.table({"value": [1, 2]})
    found = pa.concat_tables(RayExecutor().map_units(units, doubled, Adder, 100, POOL, memory=nodes * 10))
    assert found.num_rows == 2
