"""Bounded work over actors: every job once, never more in flight than allowed, errors not lost."""

from __future__ import annotations

import itertools

import pytest
import ray

from patchead.runtime.dispatch import dispatch, map_tasks


@ray.remote(num_cpus=0)
class Squarer:
    def square(self, value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value * value


def jobs(values):
    return ((value, lambda actor, value=value: actor.square.remote(value)) for value in values)


@pytest.fixture(scope="module")
def actors(local_ray: None):
    made = [Squarer.remote() for _ in range(2)]
    yield made
    for actor in made:
        ray.kill(actor)


def test_every_job_runs_once(actors) -> None:
    done = {ticket: ray.get(reference) for ticket, reference in dispatch(actors, jobs(range(20)))}
    assert done == {value: value * value for value in range(20)}


def test_jobs_are_drawn_lazily(actors) -> None:
    drawn = itertools.count()
    endless = ((i, lambda actor, i=i: actor.square.remote(i)) for i in drawn)
    finished = [ticket for ticket, _ in itertools.islice(dispatch(actors, endless, in_flight=3), 10)]
    assert len(finished) == 10
    assert next(drawn) <= 10 + 2 * 3


def test_a_failed_job_raises_where_its_result_is_read(actors) -> None:
    results = dict(dispatch(actors, jobs([1, -1, 2])))
    assert ray.get(results[2]) == 4
    with pytest.raises(ValueError, match="negative"):
        ray.get(results[-1])


def test_no_jobs_no_results(actors) -> None:
    assert list(dispatch(actors, [])) == []


def test_map_tasks_keeps_the_order(local_ray: None) -> None:
    assert map_tasks(str.upper, list("patchead")) == list("PATCHEAD")
