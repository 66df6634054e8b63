"""What it brings to score groups while others are embedded, simulated: stage after stage against both at a time.

Images come at the pace of decoding or of the encoders, whichever is slower. Where decoding is, the encoders leave a
share of each GPU to the scoring actors beside them. As in `nightly.meanwhile`, only groups that one actor holds are
scored meanwhile, the largest first; the calls in hand are waited for, and the rest is scored by the same actors, as on
GPUs.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

from patchead.forecast.cluster import Cluster
from patchead.forecast.simulate import simulate
from patchead.plan.planned import Plan
from patchead.plan.tasks import PlannedTasks, group_tasks


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Say at what pace images come: images per second of the whole cluster."""

    decoded: float
    embedded: float

    @property
    def rate(self) -> float:
        """Give the slower of both."""
        return min(self.decoded, self.embedded)

    @property
    def left(self) -> float:
        """Give the share of each GPU that embedding leaves."""
        return 1 - self.rate / self.embedded


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """Hold the seconds of a night from its first image to its last score, stage after stage and overlapped."""

    staged: float
    overlapped: float
    meanwhile: int
    """Groups that were scored while others were embedded."""


def schedules(plan: Plan, cluster: Cluster, feed: Feed) -> Schedules:
    """Simulate both schedules of a night whose images are all to be embedded.

    Raises:
        SettingsError: there is no figure for the precision.
    """
    embedding = sum(group.images for group in plan.groups) / feed.rate
    free = [cluster.figures.start_seconds] * cluster.actors
    done, ends, images = set[str](), [embedding], 0
    for group in plan.scored:
        if not group.whole:
            continue
        images += group.images
        (task,) = group_tasks(group, plan.n_patches, plan.dim)
        start = max(free[0], images / feed.rate)
        if start >= embedding:
            break
        ends.append(_end(start, cluster.seconds(task), embedding, feed.left))
        heapq.heapreplace(free, ends[-1])
        done.add(group.group_id)
    rest = replace(plan, groups=tuple(group for group in plan.groups if group.group_id not in done))
    there = replace(cluster, figures=cluster.figures.model_copy(update={"start_seconds": 0.0}))
    after = simulate(PlannedTasks(rest), there).makespan if rest.scored else 0.0
    staged = embedding + simulate(PlannedTasks(plan), cluster).makespan
    return Schedules(staged=staged, overlapped=max(*ends, *free) + after, meanwhile=len(done))


def _end(start: float, seconds: float, embedding: float, left: float) -> float:
    """When a call ends that has a share ``left`` of its GPU until ``embedding``, and all of it then."""
    by_then = (embedding - start) * left
    return start + seconds / left if by_then >= seconds else embedding + seconds - by_then
