"""What Ray Data calls in the driver while it executes: the base of our callbacks, and the pools that they look at.

Ray's own base class would import Ray Data with this package, which takes a second of every worker's start.
"""

from __future__ import annotations

from typing import Any


class ExecutionCallback:
    """Do nothing at each call of an execution of Ray Data; those of a callback do something at one."""

    def before_execution_starts(self, executor: Any) -> None:
        """Do nothing once its actors are made."""

    def on_execution_step(self, executor: Any) -> None:
        """Do nothing at a step; what is raised here ends the execution."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """Do nothing at the end."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Do nothing at the end of one that failed."""


def actor_pools(executor: Any) -> list[Any]:
    """List the pools of actors of an execution."""
    return [pool for operator in executor._topology for pool in operator.get_autoscaling_actor_pools()]
