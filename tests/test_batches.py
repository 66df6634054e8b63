from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from patchead.batches import batches, concurrently, slices, stream_batches


def test_slices_cover_the_range_once() -> None:
    assert slices(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert slices(7, 3, start=7) == []


def test_batches_cut_sequences_and_arrays() -> None:
    assert list(batches("abcdefg", 3)) == ["abc", "def", "g"]
    assert [part.tolist() for part in batches(np.arange(4), 2)] == [[0, 1], [2, 3]]
    assert list(batches([], 3)) == []


def test_a_stream_is_taken_batch_by_batch() -> None:
    counted = itertools.count()
    parts = stream_batches(counted, 3)
    assert (next(parts), next(parts)) == ([0, 1, 2], [3, 4, 5])
    assert next(counted) == 6
    assert list(stream_batches(iter("abcd"), 3)) == [["a", "b", "c"], ["d"]]


def test_results_come_in_order_from_threads_that_work_together() -> None:
    together = threading.Barrier(4, timeout=3600)

    def work(item: int) -> int:
        together.wait()  # passes only when four items are worked on at the same time
        return item * item

    assert list(concurrently(work, range(12), 4)) == [item * item for item in range(12)]
    assert list(concurrently(work, [], 4)) == []


def test_an_endless_stream_is_never_far_ahead_of_its_results() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = concurrently(lambda item: item, endless(), 3)
    for done, result in enumerate(itertools.islice(results, 50)):
        assert result == done + 1
        assert taken <= done + 6
    results.close()


def test_an_error_comes_in_its_place_and_drops_what_has_not_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError("item 2")
        return item

    results = concurrently(work, range(1000), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)
    assert len(begun) <= 2 + 4
