"""What does the work of a night: a Ray cluster, or this process. Stages are written once, against this interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from patchead.errors import PatcheadError
from patchead.runtime.in_hand import InHand
from patchead.runtime.pool import STARTS, Pool, PoolRequest

Handle = Any
"""A value that a later call takes as an argument: a reference into the object store, or the value itself."""

Result = TypeVar("Result")
Item = TypeVar("Item")

Failed = Callable[[int, PatcheadError], Any]
"""Is given the place of an item and the error of its call."""


class RunTasks(Protocol):
    """Run tasks as `Executor.run_tasks` does."""

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, failed: Failed | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Call a function of every item; yield (place of the item, result) as they finish."""


class Actor(Protocol):
    """Work in a process with a model or warm libraries: made without arguments, configured by `setup`."""

    def setup(self, spec: Any) -> None:
        """Take the specification of a stage; another one later takes its place."""


class CallCounter(Protocol):
    """Count what actors really did; it travels to them. See `call_counts.CallCounts`."""

    def began(self, task: str) -> None:
        """Count one start of ``task``; it is counted when this returns."""

    def finished(self, seconds: float) -> None:
        """Count the seconds that this actor has worked on one task."""

    def read(self, block: str, size: int, *, wait: bool = True) -> None:
        """Count one read of ``block``, of ``size`` bytes, by this node; without ``wait`` with the next call here."""

    def tasks(self) -> list[str]:
        """Return the names of the tasks that were begun."""

    def summary(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""


class ActorPool(Protocol):
    """Hold a fixed number of equal actors; each has at most `pool.IN_FLIGHT` calls at a time."""

    def call(
        self,
        method: str,
        *arguments: Any,
        results: int = 0,
        done: Callable[[], None] | None = None,
        failed: Callable[[PatcheadError], Any] | None = None,
    ) -> list[Handle]:
        """Have the next free actor call ``method``; waits while there is none.

        Args:
            method: of the actor; it returns None, or as many values as ``results`` says (a tuple if several).
            arguments: plain values, handles, and what `Executor.stream` made.
            results: how many values the method returns.
            done: is called in this process once the method has returned.
            failed: is called with the error of the method instead, and the other calls go on; without it, an error
                ends all calls. Lost nodes do so in any case.

        Raises:
            Whatever an earlier call has raised.
        """

    def give_up(self) -> None:
        """Have a thread that waits for calls raise `StoppedError`; another thread asks for it, to end."""


class Executor(Protocol):
    """Run tasks, actors and units."""

    name: str
    tell: Callable[[str], None]
    """What a warning is given to, for the terminal."""

    def session(self) -> AbstractContextManager[None]:
        """Start what is needed, and stop what was started."""

    def pools(self, wanted: PoolRequest) -> tuple[Pool, Pool]:
        """Return the embedding and the scoring pool that there is room for."""

    def pools_together(self, wanted: PoolRequest) -> tuple[Pool, Pool] | None:
        """Return pools that embed and score at the same time; None where there is no room for both."""

    def require_shared_folders(self, uris: Sequence[str]) -> None:
        """Refuse a local folder that not every node sees."""

    def on_every_node(self, function: Callable[[], Result]) -> list[Result]:
        """Call a function once on every node that may work; results in any order."""

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
        """Call a function of every item; yield (place of the item, result) as they finish, few ahead at a time.

        A call whose process ends is made again, up to ``starts`` times. ``memory``: bytes that one may take; 0 where it
        is not known. ``failed`` is called with the error of a call instead, and the others go on; without it, one ends
        all.
        """

    def submit(self, function: Callable[..., Any], *arguments: Any, num_cpus: float = 1.0) -> Handle:
        """Have a function called with plain values and handles; returns the handle of its result."""

    def put(self, value: Any) -> Handle:
        """Keep a value where every actor reaches it."""

    def stream(self, handles: Sequence[Handle]) -> Sequence[Any]:
        """Give an actor the values of ``handles`` one at a time: each is fetched when it is asked for."""

    def call_counter(self) -> CallCounter:
        """Return a new counter that no lost actor takes with it."""

    def in_hand(self) -> InHand | None:
        """Return a new memory of what each process has in hand; None where the caller's own process does the work."""

    def actors(
        self, actor_class: type[Actor], spec: Any, pool: Pool, *, keep: bool = False
    ) -> AbstractContextManager[ActorPool]:
        """Hold a pool of actors set up with ``spec``; leaving the context waits for every call.

        They are as many as there is room for just now, at most those of ``pool``. Where nodes are lost and calls wait
        for them, calling and leaving raise `LostNodesError`: what was not finished is to be begun again.

        ``keep`` leaves them, unless an error ends the context, to the next call that wants such a pool.
        """

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
        """Send each row of ``units`` through a function on any CPU, then through an actor; yield what comes out.

        Args:
            units: one row per unit of work.
            function: of a table of one row, to a table.
            actor_class: an `Actor` whose instances are called with that table.
            spec: what the actors are set up with.
            pool: their number and resources.
            starts: times that the function is begun for one unit, at most, see `run_tasks`.
            memory: bytes that one call of the function may take; 0 where it is not known.
        """
