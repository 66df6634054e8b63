from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from patchead.threads import over_threads, threads_of

CPU = torch.device("cpu")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_every_item_is_worked_on_once_by_threads_of_one_core_and_the_setting_returns() -> None:
    done: list[tuple[int, int, int]] = []
    together = threading.Barrier(3, timeout=3600)

    def work(item: int) -> None:
        if item < 3:
            together.wait()  # passes only when three items are worked on at the same time
        done.append((item, torch.get_num_threads(), threading.get_ident()))

    over_threads(work, range(20), CPU)
    assert sorted(item for item, _, _ in done) == list(range(20))
    assert {count for _, count, _ in done} == {1}
    assert len({ident for _, _, ident in done}) == 3
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_an_error_ends_the_work_and_the_setting_returns() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 1:
            raise ValueError("item 1")
        if item > 100:
            time.sleep(0.001)  # else a busy machine is through with all of them before this thread hears of the error
        done.append(item)

    with pytest.raises(ValueError, match="item 1"):
        over_threads(work, range(10_000), CPU)
    assert len(done) < 9_999
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_one_item_keeps_all_cores_and_other_devices_go_in_order() -> None:
    counts: list[int] = []
    over_threads(lambda _: counts.append(torch.get_num_threads()), [0], CPU)
    assert counts == [3]
    order: list[int] = []
    over_threads(order.append, range(5), torch.device("meta"))
    assert order == list(range(5))
    assert (threads_of(CPU), threads_of(torch.device("meta"))) == (3, 1)
