"""Bounded work by Ray tasks: every item once, never more in flight than allowed, errors as themselves."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import ray

from patchead.errors import LakeError
from patchead.files import plain_name
from patchead.runtime.dispatch import run_tasks
from tests.helpers.actors import reserved_bytes


def test_run_tasks_yields_every_result_with_its_number(local_ray: None) -> None:
    assert dict(run_tasks(str.upper, list("patchead"))) == dict(enumerate("PATCHEAD"))
    assert list(run_tasks(str.upper, [])) == []


@pytest.mark.parametrize(("num_cpus", "in_flight"), [(1.0, 4), (2.0, 2), (0.5, 8)])
def test_run_tasks_keeps_the_cluster_busy_and_no_more(local_ray: None, num_cpus: float, in_flight: int) -> None:
    drawn = itertools.count()
    found = dict(itertools.islice(run_tasks(str, drawn, num_cpus=num_cpus), 1))
    assert all(text == str(number) for number, text in found.items())
    assert next(drawn) - 1 in (in_flight, in_flight - 1)  # of two CPUs: each has one task at work and one waiting


@pytest.mark.parametrize(("share", "reserved"), [(0.0, 0.0), (0.1, 0.1), (5.0, 0.5)])
def test_tasks_reserve_their_memory_and_two_of_them_always_fit(local_ray: None, share: float, reserved: float) -> None:
    (largest,) = (int(node["Resources"]["memory"]) for node in ray.nodes() if node["Alive"])
    found = dict(run_tasks(reserved_bytes, range(3), memory=int(largest * share)))
    assert [found[number] for number in range(3)] == pytest.approx([largest * reserved] * 3, abs=2)


def test_run_tasks_raises_an_error_of_a_task_as_itself(local_ray: None) -> None:
    with pytest.raises(LakeError) as caught:
        list(run_tasks(partial(plain_name, "run_id"), ["a", "b", "../c", "d"]))
    assert type(caught.value) is LakeError
    assert str(caught.value).startswith("run_id must be 1 to 200 letters")
