"""Actors of an execution of Ray Data that failed: it drops them, and they live until Python collects its garbage."""

from __future__ import annotations

from typing import Any, ClassVar

import ray

from patchead.runtime.data_callbacks import ExecutionCallback, actor_pools


class EndWhenFailed(ExecutionCallback):
    """Know the actors of an execution of Ray Data, to end them: it calls this at each step, in the driver.

    Until then they hold CPUs and GPUs that the next night of a back-fill waits for.
    """

    actors: ClassVar[list[Any]] = []
    """Of the execution that is going on."""

    @classmethod
    def end(cls) -> None:
        """End them all."""
        for actor in cls.actors:
            ray.kill(actor)

    def on_execution_step(self, executor: Any) -> None:
        """Note those that there are now."""
        pools = actor_pools(executor)
        self.actors[:] = [actor for pool in pools for actor in (*pool._running_actors, *pool._pending_actors.values())]
