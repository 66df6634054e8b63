"""Everything in this process, one call after the other: for laptops, notebooks and tests. No Ray is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from patchead.errors import PatcheadError, SettingsError
from patchead.runtime import metrics
from patchead.runtime.call_counts import CallCounts
from patchead.runtime.executor import Actor, Failed, Handle, Item, Result
from patchead.runtime.pool import Pool, PoolRequest

_NODE, _ACTOR = "this process", "0"


class InlineExecutor:
    """Run tasks, actors and units in this process. See `executor.Executor`."""

    name = "inline"

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = print

    @contextmanager
    def session(self) -> Iterator[None]:
        """Start nothing."""
        yield

    def pools(self, wanted: PoolRequest) -> tuple[Pool, Pool]:
        """Return one actor for each stage: this process, with torch's threads or ``cpus_per_actor`` of them.

        Never more threads than cores: settings made for the nodes of a cluster work on a laptop, too.

        Raises:
            SettingsError: a GPU was asked for and is not there or not to be used, or more than one actor.
        """
        import torch

        for name in ("embed_actors", "score_actors", "expect_gpus"):
            if (asked := getattr(wanted, name)) is not None and asked > 1:
                raise SettingsError(f"resources.{name} is {asked}, but --local works in one process; leave it out.")
        gpu = torch.cuda.is_available() and wanted.device != "cpu" and wanted.gpus_per_actor != 0
        if wanted.device == "cuda" and not gpu:
            raise SettingsError(
                "encoder.device is cuda, but this machine has no GPU (or resources.gpus_per_actor is 0); set it to "
                "auto or cpu."
            )
        for name in ("gpus_per_actor", "expect_gpus"):
            if (asked := getattr(wanted, name)) and not gpu:
                raise SettingsError(
                    f"resources.{name} is {asked}, but --local finds no GPU here (or encoder.device is cpu); leave it "
                    "out."
                )
        threads = min(wanted.cpus_per_actor or torch.get_num_threads(), _cores())
        pool = Pool(size=1, num_cpus=threads, num_gpus=float(gpu), threads=threads, decode_cpus=0.0)
        return pool, pool

    def pools_together(self, wanted: PoolRequest) -> None:
        """Return None: one thing is done after the other."""

    def require_shared_folders(self, uris: Sequence[str]) -> None:
        """Do nothing: there is one process."""

    def on_every_node(self, function: Callable[[], Result]) -> list[Result]:
        """Call a function here."""
        return [function()]

    def run_tasks(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        num_cpus: float = 1.0,
        starts: int = 1,
        memory: int = 0,
        failed: Failed | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Call a function of every item, in order."""
        for index, item in enumerate(items):
            try:
                found = function(item)
            except PatcheadError as exc:
                if failed is None:
                    raise
                failed(index, exc)
                continue
            yield index, found

    def submit(self, function: Callable[..., Any], *arguments: Any, num_cpus: float = 1.0) -> Handle:
        """Call a function and return its result."""
        return function(*arguments)

    def put(self, value: Any) -> Handle:
        """Return the value."""
        return value

    def stream(self, handles: Sequence[Handle]) -> Sequence[Any]:
        """Return the values."""
        return handles

    def call_counter(self) -> InlineCounter:
        """Return a new counter."""
        return InlineCounter()

    def in_hand(self) -> None:
        """Return None: what ends this process ends the run."""

    @contextmanager
    def actors(self, actor_class: type[Actor], spec: Any, pool: Pool, *, keep: bool = False) -> Iterator[InlineActors]:
        """Hold one actor in this process; torch's threads are as before afterwards."""
        with _torch_threads(pool.threads):
            actor = actor_class()
            actor.setup(spec)
            yield InlineActors(actor)

    def map_units(
        self,
        units: pa.Table,
        function: Callable[[pa.Table], pa.Table],
        actor_class: type[Any],
        spec: Any,
        pool: Pool,
        *,
        starts: int = 1,
        memory: int = 0,  # as one call is made at a time, it gets what there is
    ) -> Iterator[pa.Table]:
        """Send each unit through the function and the actor, one after the other."""
        if not units.num_rows:
            return
        with _torch_threads(pool.threads):
            actor = actor_class()
            actor.setup(spec)
            for index in range(units.num_rows):
                with metrics.work("decode"):
                    decoded = function(units.slice(index, 1))
                with metrics.work("embed"):
                    found = actor(decoded)
                yield found


class InlineActors:
    """Hold the one actor of this process. See `executor.ActorPool`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def call(
        self,
        method: str,
        *arguments: Any,
        results: int = 0,
        done: Callable[[], None] | None = None,
        failed: Callable[[PatcheadError], Any] | None = None,
    ) -> list[Handle]:
        """Call the method now."""
        try:
            with metrics.work("score"):
                returned = getattr(self._actor, method)(*arguments)
        except PatcheadError as exc:
            if failed is None:
                raise
            failed(exc)
            return []
        if done is not None:
            done()
        return [] if not results else [returned] if results == 1 else list(returned)

    def give_up(self) -> None:
        """Do nothing: no call is in hand."""


class InlineCounter:
    """Count for the one actor on the one node there is. See `executor.CallCounter`."""

    def __init__(self) -> None:
        self._counts = CallCounts()
        self.began, self.tasks, self.summary = self._counts.began, self._counts.tasks, self._counts.summary

    def finished(self, seconds: float) -> None:
        """Count the seconds of one task."""
        self._counts.finished(_ACTOR, seconds)

    def read(self, block: str, size: int, *, wait: bool = True) -> None:
        """Count one read of a block."""
        self._counts.read(_NODE, block, size)


def _cores() -> int:
    return os.cpu_count() or 1


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
