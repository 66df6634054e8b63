"""Tasks, actors and units on a Ray cluster. See `executor.Executor`."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from patchead.errors import LostNodesError
from patchead.runtime import metrics, session
from patchead.runtime.call_counts import CallCounts
from patchead.runtime.dispatch import run_tasks, within_a_node
from patchead.runtime.executor import Actor, Failed, Handle, Item, Result
from patchead.runtime.in_hand import Memory
from patchead.runtime.joined_nodes import Growth, GrowWhenJoined
from patchead.runtime.left_actors import EndWhenFailed
from patchead.runtime.lost_nodes import Stall, StopWhenStalled, with_room
from patchead.runtime.pool import STARTS, Pool, PoolRequest
from patchead.runtime.quiet_ray import WhenStarted, started_quietly
from patchead.runtime.ray_actors import RayActors
from patchead.runtime.ray_folder import RayFolder
from patchead.runtime.ray_worker import RayCounter, RayInHand, References, Worker
from patchead.runtime.worker_errors import worker_errors

_NUMBER = "unit number"


class RayExecutor:
    """Run tasks, actors and units on the cluster of RAY_ADDRESS, or on a Ray that is started here.

    ``keep_actors`` leaves the scoring actors of one stage to the next one that wants the same: for tests, whose stages
    are short. A night gives its CPUs and GPUs back between the stages.
    """

    name = "ray"

    def __init__(self, local_cpus: int | None = None, *, keep_actors: bool = False) -> None:
        self._local_cpus, self._keep = local_cpus, keep_actors
        self._wait_minutes = PoolRequest().wait_minutes
        self.tell: Callable[[str], None] = print
        self._idle: dict[tuple[type[Any], Pool], list[Any]] = {}

    def close(self) -> None:
        """End the actors that were kept."""
        while self._idle:
            for worker in self._idle.popitem()[1]:
                ray.kill(worker)

    def session(self) -> AbstractContextManager[None]:
        """Connect to the cluster, or start Ray on this machine and stop it at the end."""
        return session.ray_session(self._local_cpus)

    def pools(self, wanted: PoolRequest) -> tuple[Pool, Pool]:
        """Return the pools that the connected cluster has room for. See `session.pools`."""
        self._wait_minutes = wanted.wait_minutes
        return session.pools(wanted)

    def pools_together(self, wanted: PoolRequest) -> tuple[Pool, Pool] | None:
        """Return pools that share the connected cluster. See `session.pools_together`."""
        return session.pools_together(wanted)

    def require_shared_folders(self, uris: Sequence[str]) -> None:
        """Refuse a folder of this machine on a cluster whose other nodes do not see it."""
        session.require_shared_folders(uris, self._stall())

    def on_every_node(self, function: Callable[[], Result]) -> list[Result]:
        """Call a function on every node that has CPUs."""
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        return session.on_nodes(nodes, function, self._stall())

    def run_tasks(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        num_cpus: float = 1.0,
        starts: int = STARTS,
        memory: int = 0,
        failed: Failed | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Call a function of every item by Ray tasks; both must pickle."""
        return run_tasks(
            function,
            items,
            num_cpus=num_cpus,
            starts=starts,
            memory=memory,
            wait_minutes=self._wait_minutes,
            tell=self.tell,
            failed=failed,
        )

    def submit(self, function: Callable[..., Any], *arguments: Any, num_cpus: float = 1.0) -> Handle:
        """Have a function called by a Ray task."""
        return _task(function, num_cpus).remote(*arguments)

    def put(self, value: Any) -> Handle:
        """Put a value into the object store."""
        return ray.put(value)

    def stream(self, handles: Sequence[Handle]) -> Sequence[Any]:
        """Give an actor references that it reads one at a time."""
        return References(handles)

    def call_counter(self) -> RayCounter:
        """Start a counting actor on this node: it must not be lost with a worker node."""
        return RayCounter(*_kept_here(CallCounts))

    def in_hand(self) -> RayInHand:
        """Start a remembering actor on this node."""
        return RayInHand(*_kept_here(Memory))

    @contextmanager
    def actors(self, actor_class: type[Actor], spec: Any, pool: Pool, *, keep: bool = False) -> Iterator[RayActors]:
        """Hold a pool of Ray actors.

        A lost one is started again, and its calls are made again, each up to `STARTS` times: every call is idempotent.
        """
        wanted, pool = pool, self._with_room(pool)
        key = (actor_class, replace(pool, grows=False))
        workers = self._idle.pop(key, None) or [_start(actor_class, pool) for _ in range(pool.size)]
        stall = self._stall()
        more = partial(_more, actor_class, Growth(wanted, stall, self.tell))
        calls = RayActors(actor_class.__name__, workers, ray.put(spec), stall, more)
        try:
            with metrics.holding("score", pool.size):
                yield calls
                calls.drain()
        except BaseException:
            for worker in calls.workers:
                ray.kill(worker)
            raise
        if keep or self._keep:
            self._idle[key] = calls.workers
            return
        for worker in calls.workers:
            ray.kill(worker)

    def map_units(
        self,
        units: pa.Table,
        function: Callable[[pa.Table], pa.Table],
        actor_class: type[Any],
        spec: Any,
        pool: Pool,
        *,
        starts: int = STARTS,
        memory: int = 0,
    ) -> Iterator[pa.Table]:
        """Send each unit through Ray Data: the function by tasks, then a pool of actors that grows where nodes join.

        Where nodes are lost and the pool waits for them, what has not come is sent again through a smaller pool.
        """
        left = units.append_column(_NUMBER, pa.array(range(units.num_rows), pa.int64()))
        while left.num_rows:
            done = list[int]()
            try:
                with worker_errors("decoding and embedding"):
                    for found in self._through_ray_data(left, function, (actor_class, spec), pool, starts, memory):
                        done += pc.unique(found[_NUMBER]).to_pylist()
                        yield found.drop_columns([_NUMBER])
                return
            except LostNodesError as exc:
                self.tell(f"warning: {exc}; what they had in hand is embedded anew")
            left = left.filter(pc.invert(pc.is_in(left[_NUMBER], value_set=pa.array(done, pa.int64()))))

    def _stall(self) -> Stall:
        return Stall(RayFolder(self._wait_minutes, self.tell))

    def _with_room(self, pool: Pool) -> Pool:
        return with_room(pool, self._wait_minutes, self.tell)

    def _through_ray_data(
        self,
        units: pa.Table,
        function: Callable[[pa.Table], pa.Table],
        actor: tuple[type[Any], Any],
        pool: Pool,
        starts: int,
        memory: int,
    ) -> Iterator[pa.Table]:
        from ray.data import ActorPoolStrategy, DataContext, from_arrow

        StopWhenStalled.stall = stall = self._stall()
        GrowWhenJoined.growth = Growth(pool, stall, self.tell)
        pool = self._with_room(pool)
        added = DataContext.get_current().custom_execution_callback_classes
        callbacks = (StopWhenStalled, GrowWhenJoined, WhenStarted, EndWhenFailed)
        added += [callback for callback in callbacks if callback not in added]
        one_each = {"batch_size": 1, "batch_format": "pyarrow"}
        source = from_arrow([units.slice(i, 1) for i in range(units.num_rows)])
        with warnings.catch_warnings():
            # Without max_retries a task whose process ends is tried for ever, and Ray Data has no other way to say it.
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            decoded = source.map_batches(
                partial(_numbered, "decode", function),
                num_cpus=pool.decode_cpus,
                memory=within_a_node(memory),
                max_retries=starts - 1,
                **one_each,
            )
        done = decoded.map_batches(
            _UnitActor,
            fn_constructor_args=actor,
            compute=ActorPoolStrategy(size=pool.size),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            **one_each,
        )
        try:
            with metrics.holding("embed", pool.size), stall.told(), started_quietly():
                for found in done.iter_batches(batch_size=None, batch_format="pyarrow"):
                    stall.moved()
                    yield found
        except BaseException:
            EndWhenFailed.end()
            raise
        finally:
            StopWhenStalled.stall = GrowWhenJoined.growth = None
            EndWhenFailed.actors.clear()


def _numbered(stage: str, function: Callable[[pa.Table], pa.Table], unit: pa.Table) -> pa.Table:
    """What a function makes of a unit, with the unit's number in each row."""
    with metrics.work(stage):
        found = function(unit.drop_columns([_NUMBER]))
    return found.append_column(_NUMBER, pa.array([unit[_NUMBER][0].as_py()] * found.num_rows, pa.int64()))


class _UnitActor:
    """What Ray Data's actor pool holds: an actor that is called with one unit.

    It is set up by its first call: of an actor that fails to be made Ray tells no more than that it died.
    """

    def __init__(self, actor_class: type[Any], spec: Any) -> None:
        self._actor, self._spec, self._is_set_up = actor_class(), spec, False

    def __call__(self, unit: pa.Table) -> pa.Table:
        if not self._is_set_up:
            self._actor.setup(self._spec)
            self._is_set_up = True
        return _numbered("embed", self._actor, unit)


def _kept_here(kept: type[Any]) -> tuple[str, Any]:
    """The name and the handle of an actor on the driver's node, which lives as long as the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    name = f"patchead-{kept.__name__}-{uuid.uuid4().hex}"
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(kept)
    return name, remote.options(name=name).remote()


@lru_cache(maxsize=8)
def _task(function: Callable[..., Any], num_cpus: float) -> Any:
    """A function as Ray's workers get it: each one that is made is sent to the cluster, and fetched by every worker."""
    return ray.remote(num_cpus=num_cpus)(function)


def _start(actor_class: type[Actor], pool: Pool) -> Any:
    # A machine may be lost as often as it will; a task that ends its process again and again is told at last.
    options = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus, "max_restarts": -1}
    remote = ray.remote(**options, max_task_retries=STARTS - 1)(Worker)
    return remote.remote(actor_class)


def _more(actor_class: type[Actor], growth: Growth, there: int) -> list[Any]:
    """Start actors where nodes have joined those on which so many are there."""
    return [_start(actor_class, growth.pool) for _ in range(growth.more(there))]
