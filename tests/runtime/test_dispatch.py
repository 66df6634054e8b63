"""Bounded work over actors: every job once, never more in flight than allowed, errors not lost."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import ray

from patchead.errors import LakeError
from patchead.files import plain_name
from patchead.runtime.dispatch import dispatch, map_tasks, run_tasks


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


def test_run_tasks_yields_every_result_with_its_number(local_ray: None) -> None:
    assert dict(run_tasks(str.upper, list("patchead"))) == dict(enumerate("PATCHEAD"))
    assert list(run_tasks(str.upper, [])) == []


@pytest.mark.parametrize(("num_cpus", "in_flight"), [(1.0, 8), (2.0, 4), (0.5, 16)])
def test_run_tasks_keeps_the_cluster_busy_and_no_more(local_ray: None, num_cpus: float, in_flight: int) -> None:
    drawn = itertools.count()
    found = dict(itertools.islice(run_tasks(str, drawn, num_cpus=num_cpus), 1))
    assert all(text == str(number) for number, text in found.items())
    assert next(drawn) - 1 in (in_flight, in_flight - 1)  # of four CPUs: each has one task at work and one waiting


def test_run_tasks_raises_an_error_of_a_task_as_itself(local_ray: None) -> None:
    with pytest.raises(LakeError) as caught:
        list(run_tasks(partial(plain_name, "run_id"), ["a", "b", "../c", "d"]))
    assert type(caught.value) is LakeError
    assert str(caught.value).startswith("run_id must be 1 to 200 letters")
