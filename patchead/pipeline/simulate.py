"""A discrete simulation of scoring: tasks over actors as `pipeline.spread` hands them out, stragglers, one lost node.

A call takes overhead + FLOPs / rate + bytes / rate. Transfers are not overlapped with the work of the call before, and
every tile takes its blocks anew even where a neighbour on its node has them: both err on the slow side. The rates of a
node are shared evenly by its actors. Blocks that a lost node had loaded are taken from elsewhere at no cost.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from patchead.errors import SettingsError, bad_value
from patchead.pipeline.scenario import Cluster, Outcome, Trouble
from patchead.pipeline.tasks import FINISH, HELD, LOAD, Task

IN_FLIGHT = 2  # calls per actor, as in `spread`


def simulate(tasks: Iterable[Task], cluster: Cluster, trouble: Trouble | None = None) -> Outcome:
    """Run ``tasks``, ordered by phase, on ``cluster``. Equal arguments give equal outcomes.

    ``tasks`` is iterated twice when a node is lost: a `PlannedTasks` or a list.

    Raises:
        SettingsError: the only node is lost and never comes back; no figure for the precision.
    """
    trouble = trouble or Trouble()
    if trouble.lose_at is None:
        return _Run(cluster, trouble, None).all(tasks)
    if cluster.nodes == 1 and trouble.restart_seconds is None:
        raise SettingsError(bad_value("restart_seconds", None, "given when the only node is lost"))
    whole = _Run(cluster, trouble, None).all(tasks).makespan
    return _Run(cluster, trouble, trouble.lose_at * whole).all(tasks)


@dataclass
class _Call:
    task: Task
    start: float
    end: float
    slot: bool  # whether its end lets `spread` hand out another one
    lost: bool = False


class _Run:
    """One simulated run. The heap holds the calls in flight by their end."""

    def __init__(self, cluster: Cluster, trouble: Trouble, lose_time: float | None) -> None:
        self.cluster, self.trouble, self.lose_time = cluster, trouble, lose_time
        self.random = random.Random(trouble.seed)
        self.out = Outcome(cluster.actors)
        self.now, self.numbers = 0.0, 0
        self.alive = list(range(cluster.actors))
        self.busy_until = [cluster.figures.start_seconds] * cluster.actors
        self.heap: list[tuple[float, int, int, _Call]] = []
        self.calls: list[deque[_Call]] = [deque() for _ in range(cluster.actors)]
        self.held: list[list[Task]] = [[] for _ in range(cluster.actors)]
        self.reader_free = [cluster.figures.start_seconds] * cluster.nodes  # readers start beside the actors
        self.ready: dict[int, float] = {}
        self.slots: deque[int] = deque()
        self.again: deque[Task] = deque()

    def all(self, tasks: Iterable[Task]) -> Outcome:
        for _, phase in groupby(tasks, key=attrgetter("phase")):
            self._phase(phase)
        self.out.makespan = max(self.now, self.cluster.figures.start_seconds if self.out.tasks else 0.0)
        return self.out

    def _phase(self, tasks: Iterable[Task]) -> None:
        self.slots = deque(self.alive * IN_FLIGHT)
        waiting = iter(tasks)
        while True:
            task = self.again.popleft() if self.again else next(waiting, None)
            if task is None:
                if not self._finish_one():
                    return
            elif task.kind == LOAD:
                self._load(task)
            else:
                while not self.slots:
                    self._finish_one()
                self._submit(task, self.slots.popleft(), self.now)

    def _load(self, task: Task) -> None:
        """Blocks are read by the nodes in turn, before and beside the work of the actors."""
        (block,) = task.needs
        if block == 0:
            self.ready.clear()  # another group
        node = block % self.cluster.nodes
        figures = self.cluster.figures
        seconds = task.read_bytes / figures.read_bytes + task.bytes_out / figures.network_bytes
        self.reader_free[node] = max(self.reader_free[node], self.now) + figures.task_seconds + seconds
        self.ready[block] = self.reader_free[node]
        self._count(task)

    def _submit(self, task: Task, actor: int, earliest: float, *, slot: bool = True) -> None:
        seconds = self.cluster.seconds(task)
        if self.random.random() < self.trouble.stragglers:
            seconds *= self.trouble.slowdown
        blocks = max((self.ready.get(block, 0.0) for block in task.needs), default=0.0)
        start = max(earliest, self.busy_until[actor], blocks)
        call = _Call(task, start, start + seconds, slot)
        self.busy_until[actor] = call.end
        self.numbers += 1
        heapq.heappush(self.heap, (call.end, self.numbers, actor, call))
        self.calls[actor].append(call)

    def _finish_one(self) -> bool:
        """Go on to the next event; False when nothing is in flight and nothing is to be done again."""
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
            self.held = [[] for _ in self.held]
        if call.slot:
            self.slots.append(actor)
        return True

    def _count(self, task: Task) -> None:
        self.out.tasks += 1
        self.out.read_bytes += task.read_bytes
        self.out.moved_bytes += task.moved_bytes

    def _lose(self, when: float) -> None:
        """The last node goes: its calls in flight and the results it holds are to be done again."""
        self.now = when
        gone = [actor for actor in self.alive if self.cluster.node_of(actor) == self.cluster.nodes - 1]
        back = self.trouble.restart_seconds
        for actor in gone:
            calls, held = self.calls[actor], self.held[actor]
            self.calls[actor], self.held[actor] = deque(), []
            for call in calls:
                call.lost = True
                self.out.busy += max(0.0, when - call.start)
                self.out.redone += call.start < when
            self.out.redone += len(held)
            if back is None:
                self.again.extend([*held, *(call.task for call in calls)])
                continue
            self.busy_until[actor] = when + back + self.cluster.figures.start_seconds
            for task in held:
                self._submit(task, actor, when, slot=False)
            for call in calls:
                self._submit(call.task, actor, when, slot=call.slot)
        if back is None:
            self.alive = [actor for actor in self.alive if actor not in gone]
            self.slots = deque(actor for actor in self.slots if actor not in gone)
