"""What travels to Ray's workers. Light: every scoring actor imports it, and none needs Ray Data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from patchead.runtime import metrics
from patchead.runtime.executor import Actor
from patchead.runtime.in_hand import Begun
from patchead.runtime.worker_errors import worker_errors


class References(Sequence[Any]):
    """Hold values in the object store, fetched when they are asked for."""

    def __init__(self, references: Sequence[ray.ObjectRef]) -> None:
        self._references = list(references)

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, index: Any) -> Any:
        return ray.get(self._references[index])


class _Reached:
    """An actor that is reached by its name, wherever the caller is."""

    def __init__(self, name: str, owner: Any = None) -> None:
        self._name, self._owner = name, owner  # the owner's handle keeps the actor alive

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return type(self), (self._name,)

    @property
    def _actor(self) -> Any:
        if self._owner is None:
            self._owner = ray.get_actor(self._name)
        return self._owner


class RayInHand(_Reached):
    """Reach a remembering actor. See `in_hand.InHand`."""

    def begin(self, work: str, seconds: float) -> Begun:
        """Note one start."""
        with worker_errors():
            return ray.get(self._actor.begin.remote(work, seconds))

    def take(self, work: str, piece: str) -> None:
        """Note what is in hand; waits, as the process may end at once."""
        ray.get(self._actor.take.remote(work, piece))

    def late(self, work: str) -> None:
        """Note that it takes too long."""
        ray.get(self._actor.late.remote(work))

    def end(self, work: str) -> None:
        """Forget what was in hand."""
        ray.get(self._actor.end.remote(work))


class RayCounter(_Reached):
    """Reach a counting actor. See `executor.CallCounter`."""

    def began(self, task: str) -> None:
        """Count one start; waits, so that what is lost from here on has been counted."""
        ray.get(self._actor.began.remote(task))

    def finished(self, seconds: float) -> None:
        """Count the seconds of one task of this actor."""
        ray.get(self._actor.finished.remote(ray.get_runtime_context().get_actor_id(), seconds))  # the run may end then

    def read(self, block: str, size: int, *, wait: bool = True) -> None:
        """Count one read of a block by this node; calls of one process are counted in their order."""
        counted = self._actor.read.remote(ray.get_runtime_context().get_node_id(), block, size)
        if wait:
            ray.get(counted)

    def tasks(self) -> list[str]:
        """Return the names of the tasks that were begun."""
        return ray.get(self._actor.tasks.remote())

    def summary(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        return ray.get(self._actor.summary.remote())


class Worker:
    """Be the Ray actor: hold one `executor.Actor` and sets it up when the specification is another one.

    The specification comes with every call, so an actor that was lost and started again is set up like the others.
    """

    def __init__(self, actor_class: type[Actor]) -> None:
        self._actor, self._spec_id = actor_class(), ""

    def ready(self) -> None:
        """Return once this process is there."""

    def call(self, spec: tuple[str, list[ray.ObjectRef]], method: str, results: int, *arguments: Any) -> Any:
        """Return None first, so that the driver hears of an error without fetching a value."""
        spec_id, (reference,) = spec
        if spec_id != self._spec_id:
            self._actor.setup(ray.get(reference))
            self._spec_id = spec_id
        with metrics.work("score"):
            returned = getattr(self._actor, method)(*arguments)
        if not results:
            return None
        return (None, returned) if results == 1 else (None, *returned)
