"""What a simulation is given, a cluster and what goes wrong on it, and what it gives back. Checked values only."""

from __future__ import annotations

from dataclasses import dataclass

from patchead.errors import SettingsError, bad_value
from patchead.forecast.device_speeds import DeviceFigures
from patchead.plan.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Describe equal actors on equal nodes; the last node may have fewer.

    Raises:
        SettingsError: a count below 1.
    """

    actors: int
    actors_per_node: int
    figures: DeviceFigures
    precision: str

    def __post_init__(self) -> None:
        for name, value in (("--gpus", self.actors), ("--gpus-per-node", self.actors_per_node)):
            if value < 1:
                raise SettingsError(bad_value(name, value, "at least 1"))

    @property
    def nodes(self) -> int:
        """Count the nodes."""
        return -(-self.actors // self.actors_per_node)

    @property
    def together(self) -> int:
        """Count the actors that share a full node."""
        return min(self.actors, self.actors_per_node)

    def node_of(self, actor: int) -> int:
        """Give the number of an actor's node."""
        return actor // self.actors_per_node

    def seconds(self, task: Task) -> float:
        """Estimate one undisturbed call on an actor, in seconds."""
        figures = self.figures
        work = task.flops / (task.pace * figures.rate(self.precision, self.together)) if task.flops else 0.0
        transfer = task.read_bytes / figures.read_bytes + task.moved_bytes / figures.network_bytes
        return figures.task_seconds + work + transfer * self.together


@dataclass(frozen=True, kw_only=True)
class Disturbances:
    """Say what goes wrong: a fraction of slow calls, the last node lost at a fraction of the undisturbed makespan.

    A lost actor's running call and its results that are still held are done again: on the same actor when it is back
    after ``restart_seconds``, as a call stays with its actor.

    Raises:
        SettingsError: a fraction outside of 0 to 1, a slow-down outside of 1 to a million, or a negative delay.
    """

    stragglers: float = 0.0
    slowdown: float = 1.0
    lose_at: float | None = None
    restart_seconds: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.stragglers <= 1:
            raise SettingsError(bad_value("--stragglers", self.stragglers, "a fraction from 0 to 1"))
        if not 1 <= self.slowdown <= 1e6:
            raise SettingsError(bad_value("--slowdown", self.slowdown, "a factor from 1 to 1e6"))
        if self.lose_at is not None and not 0 <= self.lose_at <= 1:
            raise SettingsError(bad_value("lose_at", self.lose_at, "a fraction from 0 to 1"))
        if not self.restart_seconds >= 0:
            raise SettingsError(bad_value("restart_seconds", self.restart_seconds, "0 or more"))


@dataclass
class Outcome:
    """Hold what the simulation saw: seconds, bytes and counts."""

    actors: int
    makespan: float = 0.0
    """From asking for the actors to the last group's end."""
    busy: float = 0.0
    """Actor seconds in calls, those that were lost included."""
    idle: float = 0.0
    """Largest share of an actor's time, from its start until the last call was handed out, that it had none to do."""
    tasks: int = 0
    redone: int = 0
    read_bytes: int = 0
    moved_bytes: int = 0

    @property
    def utilisation(self) -> float:
        """Give the share of the actors' time in which they work."""
        return self.busy / (self.actors * self.makespan) if self.makespan else 0.0

    @property
    def bytes_per_actor(self) -> float:
        """Average the bytes that an actor reads and moves."""
        return (self.read_bytes + self.moved_bytes) / self.actors

    def cost(self, price_per_hour: float) -> float:
        """Price the run: every actor is paid for until the end."""
        return price_per_hour * self.actors * self.makespan / 3600
