"""What ends its process again and again is named and left out; an innocent neighbour is not."""

from __future__ import annotations

import multiprocessing
import signal
from functools import partial

import pytest

from patchead.errors import DecodeError, WorkerError
from patchead.runtime.in_hand import MOST_PIECES, MOST_STARTS, Memory, Watch
from patchead.runtime.ray_executor import RayExecutor
from tests.helpers.failures import watched

CRASHED = "killed its decoder: a crash, or no memory left"


def lost(memory: Memory, piece: str | None) -> None:
    """A start that ended with ``piece`` in hand."""
    memory.begin("work", 60)
    if piece is not None:
        memory.take("work", piece)


def test_the_first_start_notes_nothing() -> None:
    with Watch(memory := Memory(), "work", 60) as watch, watch.over("a"):
        assert not memory._held
    assert memory.begin("work", 60).left_out == {}


def test_a_piece_in_hand_at_two_ends_is_left_out_and_no_other() -> None:
    memory = Memory()
    for piece in (None, "b", "c", "b"):
        lost(memory, piece)
    with Watch(memory, "work", 60) as watch:
        with pytest.raises(DecodeError, match=rf"^tried 3 times: {CRASHED}$"), watch.over("b"):
            pass
        with watch.over("a"), watch.over("c"):
            pass
    assert memory.begin("other", 60).left_out == {}


def test_work_that_is_done_again_forgives() -> None:
    memory = Memory()
    for _ in range(3 * MOST_STARTS):
        with Watch(memory, "work", 60) as watch, watch.over("a"):
            pass


def test_ends_between_pieces_are_told_and_blame_none() -> None:
    memory = Memory()
    with pytest.raises(WorkerError, match=r"^work ended its process 5 times, and no image was being decoded") as caught:
        for _ in range(20):
            memory.begin("work", 60)
    assert "same run id" in str(caught.value)


def test_so_many_are_no_fault_of_the_pieces() -> None:
    memory = Memory()
    lost(memory, None)
    with pytest.raises(WorkerError, match=rf"^{MOST_PIECES + 1} images have ended .*look at the memory of the nodes"):
        for number in range(2 * MOST_PIECES + 4):
            lost(memory, f"piece{number // 2}")


def spin(seconds: float, starts: int) -> None:
    memory = Memory()
    for _ in range(starts - 1):
        memory.begin("work", seconds)
    with Watch(memory, "work", seconds) as watch, watch.over("a"):
        while True:
            pass


@pytest.mark.parametrize(("starts", "sent"), [(1, signal.SIGALRM), (2, signal.SIGKILL)])
def test_a_process_that_takes_too_long_is_ended(starts: int, sent: signal.Signals) -> None:
    process = multiprocessing.get_context("spawn").Process(target=spin, args=(0.2, starts))
    process.start()
    process.join()
    assert process.exitcode == -sent


def test_on_ray_a_piece_that_hangs_is_told_and_the_others_are_done(local_ray: None) -> None:
    executor = RayExecutor()
    work = partial(watched, in_hand=executor.in_hand())
    found = dict(executor.run_tasks(work, ["abh", "c"], num_cpus=0.5, starts=MOST_STARTS))
    assert found == {0: ["a", "b", "tried 3 times: took longer than `max_image_seconds` 0.5 to decode"], 1: ["c"]}
