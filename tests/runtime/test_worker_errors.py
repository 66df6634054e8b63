"""Whatever a worker raises, in whichever kind of work, reaches the terminal as one clear line."""

from __future__ import annotations

import gc
import time

import pyarrow as pa
import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError

from patchead.errors import DamagedFileError, PatcheadError, WorkerError
from patchead.runtime.pool import Pool
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.worker_errors import one_line, told
from tests.helpers.failures import FailingActor, fail, failing

POOL = Pool(size=1, num_cpus=0.5, num_gpus=0, threads=1, decode_cpus=0.25)
WORDS = {
    "ours": r"^u1\.arrow is damaged\.$",
    "disk": "OSError: .*No space left on device",
    "cut": "ClientPayloadError: Response payload is not completed",
    "memory": "ArrowMemoryError: malloc of size 9 failed",
    "bug": "TypeError: not a number second line",
    "stuck": ".",  # of an error that cannot travel Ray tells what it will
    "long": "ValueError: x{400}",
}


WORKS = ("function", "actor", "setup", "task", "call")
# That of an actor is below, where its CPUs are looked for too.
QUICK = {("function", "ours"), ("setup", "disk"), ("call", "bug"), *(("task", how) for how in WORDS)}
PAIRS = [
    pytest.param(how, work, marks=() if (work, how) in QUICK else pytest.mark.slow, id=f"{how}-{work}")
    for how in WORDS
    for work in WORKS
]


@pytest.mark.parametrize(("how", "work"), PAIRS)
def test_an_error_of_any_work_is_one_line(local_ray: None, how: str, work: str) -> None:
    executor = RayExecutor()
    with pytest.raises(PatcheadError, match=WORDS[how]) as caught, executor.session():
        if work == "task":
            list(executor.run_tasks(fail, [how], num_cpus=0.25))
        elif work == "call":
            with executor.actors(FailingActor, "", POOL) as actors:
                actors.call("call", how)
        else:
            units = pa.table({"how": [how], "stage": [work]})
            list(executor.map_units(units, failing, FailingActor, how if work == "setup" else "", POOL))
    require_one_line(str(caught.value))
    if how == "ours":
        assert type(caught.value) is DamagedFileError
        assert caught.value.uri == "/lake/u1.arrow"
    else:
        assert type(caught.value) is WorkerError
        assert "same run id" in str(caught.value)


def require_one_line(text: str) -> None:
    assert len(text.splitlines()) == 1
    assert len(text) < 800
    assert "\x1b" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("work", [pytest.param("function", marks=pytest.mark.slow), "call"])
def test_work_that_ends_its_process_again_and_again_is_given_up(local_ray: None, work: str) -> None:
    """Each time a real process ends; Ray would start another one for ever."""
    executor = RayExecutor()
    with pytest.raises(WorkerError) as caught, executor.session():
        if work == "call":
            with executor.actors(FailingActor, "", POOL) as actors:
                actors.call("call", "die")
        else:
            units = pa.table({"how": ["die"], "stage": [work]})
            list(executor.map_units(units, failing, FailingActor, "", POOL))
    text = str(caught.value)
    assert text.startswith("task call failed: " if work == "call" else "decoding and embedding failed: ")
    assert len(text.splitlines()) == 1


def test_what_failed_gives_its_cpus_back_before_garbage_is_collected(local_ray: None) -> None:
    executor, before = RayExecutor(), ray.available_resources()["CPU"]
    units = pa.table({"how": ["cut"], "stage": ["actor"]})
    gc.disable()
    try:
        with pytest.raises(WorkerError, match=WORDS["cut"]) as caught, executor.session():
            list(executor.map_units(units, failing, FailingActor, "", POOL))
        while ray.available_resources()["CPU"] < before:  # else the next night of a back-fill would wait for ever, too
            time.sleep(0.05)
    finally:
        gc.enable()
    require_one_line(str(caught.value))
    assert "same run id" in str(caught.value)


def test_an_error_is_found_behind_another(local_ray: None) -> None:
    with pytest.raises(PatcheadError), RayExecutor().session():
        list(RayExecutor().run_tasks(fail, ["caused"], num_cpus=0.25))


def test_of_a_traceback_its_last_line_is_told() -> None:
    assert one_line("Traceback (most recent call last):\n  File x\n\x1b[1mValueError: no\x1b[0m\n") == "ValueError: no"
    assert one_line("a\n b \n") == "a b"


@pytest.mark.parametrize("deep", [0, 1, 3])
def test_of_errors_within_errors_the_innermost_is_told_and_ours_first(deep: int) -> None:
    def wrapped(cause: Exception) -> Exception:
        for _ in range(deep):
            trace = 'Traceback (most recent call last):\n  File "/x/patchead/lake/tables.py", line 7, in f\n'
            cause = RayTaskError("f", trace, cause, proctitle="x", pid=1, ip="1").as_instanceof_cause()
        return cause

    ours = told(wrapped(DamagedFileError("u1 is damaged.", "/lake/u1")))
    assert (type(ours), str(ours), ours.uri) == (DamagedFileError, "u1 is damaged.", "/lake/u1")  # type: ignore[attr-defined]
    text = str(told(wrapped(OSError(28, "No space left"))))
    assert ("OSError: [Errno 28] No space left" in text) == (len(text.splitlines()) == 1) is True
    assert ("patchead/lake/tables.py:7" in text) == (deep > 0)


def test_a_lost_actor_is_one_line() -> None:
    text = str(told(ActorDiedError()))
    assert text.startswith("a worker failed: ActorDiedError: The actor died")
    assert len(text.splitlines()) == 1
