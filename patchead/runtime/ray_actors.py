"""Some Ray actors, a few calls each at a time; what a call raises ends all, or its group alone."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray

from patchead.errors import LostNodesError, PatcheadError
from patchead.runtime.executor import Handle
from patchead.runtime.lost_nodes import Stall
from patchead.runtime.pool import IN_FLIGHT
from patchead.runtime.worker_errors import worker_errors

_Call = tuple[Any, Callable[[], None] | None, Callable[[PatcheadError], Any] | None, str]


class RayActors:
    """Hold Ray actors, `IN_FLIGHT` calls each; there are more of them where nodes join. See `executor.ActorPool`."""

    def __init__(
        self,
        name: str,
        workers: Sequence[Any],
        spec: ray.ObjectRef,
        stall: Stall | None = None,
        more: Callable[[int], Sequence[Any]] = lambda there: (),
    ) -> None:
        self._name, self._spec = name, (uuid.uuid4().hex, [spec])
        self.workers = [*workers]
        """Those that have joined, too."""
        self._free = deque([*workers] * IN_FLIGHT)
        self._running: dict[ray.ObjectRef, _Call] = {}
        self._joining: dict[ray.ObjectRef, Any] = {}
        self._stall, self._more = stall or Stall(), more

    def call(
        self,
        method: str,
        *arguments: Any,
        results: int = 0,
        done: Callable[[], None] | None = None,
        failed: Callable[[PatcheadError], Any] | None = None,
    ) -> list[Handle]:
        """Have the next free actor call the method."""
        while not self._free:
            self._grow()
            self._go_on()
        worker = self._free.popleft()
        remote = worker.call.options(num_returns=1 + results, name=f"{self._name}.{method}")
        returned = remote.remote(self._spec, method, results, *arguments)
        finished, *values = returned if results else [returned]
        self._running[finished] = (
            worker,
            done,
            failed,
            str(getattr(arguments[0], "name", method) if arguments else method),
        )
        return values

    def drain(self) -> None:
        """Wait for every call."""
        while self._running:
            self._go_on()

    def give_up(self) -> None:
        """Have whoever waits for a call raise `StoppedError`."""
        self._stall.given_up = True

    def _grow(self) -> None:
        """Start actors where nodes have joined; each gets calls once it is there, as others may take its place."""
        for worker in self._more(len(self.workers)):
            self.workers.append(worker)
            self._joining[worker.ready.remote()] = worker

    def _go_on(self) -> None:
        """Wait a moment for the end of a call, or for an actor that joins."""
        if (finished := self._stall.next([*self._running, *self._joining])) is None:
            return
        if (joined := self._joining.pop(finished, None)) is not None:
            self._free.extend([joined] * IN_FLIGHT)
        else:
            self._finish(finished)

    def _finish(self, finished: ray.ObjectRef) -> None:
        worker, done, failed, task = self._running.pop(finished)
        try:
            with worker_errors(f"task {task}"), self._stall.told():
                ray.get(finished)  # nothing, or the error of the call
        except PatcheadError as exc:
            if failed is None or isinstance(exc, LostNodesError):
                raise
            failed(exc)
            done = None
        self._free.append(worker)
        if done is not None:
            done()
