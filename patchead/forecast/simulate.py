"""A discrete simulation of scoring: tasks over actors as `runtime.dispatch` hands them out, stragglers, one lost node.

A call takes overhead + FLOPs / rate + bytes / rate. Transfers are not overlapped with the work of the call before, and
every tile takes its blocks anew even where a neighbour on its node has them: both err on the slow side. The rates of a
node are shared evenly by its actors. Blocks that a lost node had loaded are taken from elsewhere at no cost, and a
group's results are held, and lost with their node, until the group is finished.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from patchead.forecast.cluster import Cluster, Disturbances, Outcome
from patchead.plan.tasks import FINISH, HELD, LOAD, Key, Task
from patchead.runtime.pool import IN_FLIGHT


def simulate(tasks: Iterable[Task], cluster: Cluster, disturbances: Disturbances | None = None) -> Outcome:
    """Run ``tasks`` on ``cluster``, handed out in their order. Equal arguments give equal outcomes.

    ``tasks`` is iterated twice when a node is lost: a `PlannedTasks` or a list.

    Raises:
        SettingsError: there is no figure for the precision.
    """
    disturbances = disturbances or Disturbances()
    if disturbances.lose_at is None:
        return _Run(cluster, disturbances, None).all(tasks)
    whole = _Run(cluster, disturbances, None).all(tasks).makespan
    return _Run(cluster, disturbances, disturbances.lose_at * whole).all(tasks)


@dataclass
class _Call:
    task: Task
    start: float
    end: float
    slot: bool  # whether its end lets `dispatch` hand out another one
    lost: bool = False


class _Run:
    """One simulated run. The heap holds the calls in flight by their end."""

    def __init__(self, cluster: Cluster, disturbances: Disturbances, lose_time: float | None) -> None:
        self.cluster, self.disturbances, self.lose_time = cluster, disturbances, lose_time
        self.random = random.Random(disturbances.seed)
        self.out = Outcome(cluster.actors)
        self.now, self.numbers = 0.0, 0
        self.busy_until = [cluster.figures.start_seconds] * cluster.actors
        self.heap: list[tuple[float, int, int, _Call]] = []
        self.calls: list[deque[_Call]] = [deque() for _ in range(cluster.actors)]
        self.held: list[list[Task]] = [[] for _ in range(cluster.actors)]
        self.reader_free = [cluster.figures.start_seconds] * cluster.nodes  # readers start with the actors
        self.loads = 0
        self.ready: dict[str, dict[Key, float]] = {}
        self.slots: deque[int] = deque([*range(cluster.actors)] * IN_FLIGHT)
        self.idle, self.handed_out = [0.0] * cluster.actors, 0.0

    def all(self, tasks: Iterable[Task]) -> Outcome:
        """As the loop of `dispatch`."""
        for task in tasks:
            if task.kind == LOAD:
                self._load(task)
                continue
            while not self.slots:
                self._finish_one()
            self._submit(task, self.slots.popleft(), self.now)
        while self._finish_one():
            pass
        self.out.makespan = self.now
        if (span := self.handed_out - self.cluster.figures.start_seconds) > 0:
            self.out.idle = max(self.idle) / span
        return self.out

    def _load(self, task: Task) -> None:
        """Blocks are read by the nodes in turn, while the actors work."""
        figures = self.cluster.figures
        node = self.loads % self.cluster.nodes
        self.loads += 1
        seconds = task.read_bytes / figures.read_bytes + task.bytes_out / figures.network_bytes
        self.reader_free[node] = max(self.reader_free[node], self.now) + figures.task_seconds + seconds
        self._give(task, self.reader_free[node])
        self._count(task)

    def _submit(self, task: Task, actor: int, earliest: float, *, slot: bool = True) -> None:
        seconds = self.cluster.seconds(task)
        if self.random.random() < self.disturbances.stragglers:
            seconds *= self.disturbances.slowdown
        start = max(earliest, self.busy_until[actor], self._given(task))
        self.idle[actor] += start - self.busy_until[actor]
        self.handed_out = self.now
        self._schedule(_Call(task, start, start + seconds, slot), actor)

    def _schedule(self, call: _Call, actor: int) -> None:
        self.busy_until[actor] = call.end
        self.numbers += 1
        heapq.heappush(self.heap, (call.end, self.numbers, actor, call))
        self.calls[actor].append(call)
        self._give(call.task, call.end)

    def _give(self, task: Task, when: float) -> None:
        ready = self.ready.setdefault(task.group_id, {}) if task.gives else {}
        for key in task.gives:
            ready[key] = max(when, ready.get(key, 0.0))

    def _given(self, task: Task) -> float:
        """When everything is there that the task needs."""
        ready = self.ready[task.group_id] if task.needs else {}
        return max((ready[key] for key in task.needs), default=0.0)

    def _finish_one(self) -> bool:
        """Go on to the next event; False when nothing is in flight."""
        while self.heap and self.heap[0][3].lost:
            heapq.heappop(self.heap)
        if not self.heap:
            return False
        if self.lose_time is not None and self.heap[0][0] > self.lose_time:
            self._lose(self.lose_time)
            self.lose_time = None
            return True
        self.now, _, actor, call = heapq.heappop(self.heap)
        self.calls[actor].popleft()
        self.out.busy += call.end - call.start
        self._count(call.task)
        if call.task.kind in HELD:
            self.held[actor].append(call.task)
        elif call.task.kind == FINISH:
            self.held = [[task for task in held if task.group_id != call.task.group_id] for held in self.held]
            self.ready.pop(call.task.group_id, None)
        if call.slot:
            self.slots.append(actor)
        return True

    def _count(self, task: Task) -> None:
        self.out.tasks += 1
        self.out.read_bytes += task.read_bytes
        self.out.moved_bytes += task.moved_bytes

    def _lose(self, when: float) -> None:
        """The last node goes: its calls in flight and the results it holds are done again when it is back."""
        self.now, back = when, when + self.disturbances.restart_seconds + self.cluster.figures.start_seconds
        actors = range(self.cluster.actors)
        gone = [actor for actor in actors if self.cluster.node_of(actor) == self.cluster.nodes - 1]
        again = [(actor, self._strike(actor, when)) for actor in gone]
        for actor in gone:
            self.busy_until[actor] = back
        for actor, tasks in again:
            for task, slot in tasks:
                self._submit(task, actor, when, slot=slot)
        for actor in actors:
            self._put_off(actor, when)

    def _strike(self, actor: int, when: float) -> list[tuple[Task, bool]]:
        """Forget what a lost actor held and worked at; what is to be done again, and whether it frees a slot."""
        calls, held = self.calls[actor], self.held[actor]
        self.calls[actor], self.held[actor] = deque(), []
        for call in calls:
            call.lost = True
            self.out.busy += max(0.0, when - call.start)
            self.out.redone += call.start < when
        self.out.redone += len(held)
        return [*((task, False) for task in held), *((call.task, call.slot) for call in calls)]

    def _put_off(self, actor: int, when: float) -> None:
        """Calls that wait for a result that was lost wait for its repetition."""
        calls, self.calls[actor] = self.calls[actor], deque()
        self.busy_until[actor] = when
        for call in calls:
            start = (
                call.start if call.start <= when else max(call.start, self.busy_until[actor], self._given(call.task))
            )
            if start == call.start:
                self.calls[actor].append(call)
                self.busy_until[actor] = call.end
                continue
            call.lost = True
            self._schedule(_Call(call.task, start, start + call.end - call.start, call.slot), actor)
