"""Integers are multiplied by torch or by NumKong, whichever is faster here; the products are the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from patchead.forecast.calibrate import unit_vectors
from patchead.scoring import integer_products
from patchead.scoring.integer_products import by_numkong, multiplier, numkong_over_torch
from patchead.scoring.leave_one_out import Aggregation
from patchead.search.score import score_group

_OWN = torch.Generator().manual_seed(0)


def integers(*shape: int) -> torch.Tensor:
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=_OWN)


@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 1), (3, 2, 5), (50, 33, 384), (1, 700, 1152), (257, 129, 64)])
def test_numkong_gives_the_products_as_they_are_defined(m: int, n: int, d: int) -> None:
    x, y, out = integers(m, d), integers(n, d), torch.zeros(m, n, dtype=torch.int32)
    by_numkong(x, y.t(), out=out)
    np.testing.assert_array_equal(out, x.numpy().astype(np.int64) @ y.numpy().astype(np.int64).T)


def test_vectors_may_lie_apart_and_be_the_largest_there_are() -> None:
    x, y = integers(40, 3, 96)[:, 1], integers(30, 5, 96)[:, 4]
    x[0], y[0] = 127, -127
    found = [torch.zeros(40, 30, dtype=torch.int32) for _ in range(2)]
    by_numkong(x, y.t(), out=found[0])
    torch._int_mm(x, y.t(), out=found[1])
    assert torch.equal(*found)
    assert found[0][0, 0] == -96 * 127 * 127


@pytest.fixture
def without_integer_instructions() -> Iterator[None]:
    """What torch has on a processor without VNNI: a plain loop. NumKong has what this processor has."""
    numkong_over_torch.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's word on Intel GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            yield
    numkong_over_torch.cache_clear()


@pytest.mark.usefixtures("without_integer_instructions")
def test_numkong_is_taken_where_torch_has_plain_loops() -> None:
    assert numkong_over_torch() > 5
    assert multiplier(integers(2, 8)) is by_numkong
    assert multiplier(torch.zeros(2, 8)) is torch.mm


@pytest.mark.usefixtures("plain_loops")
def test_what_both_are_slow_in_is_found_in_no_time() -> None:
    assert 0.02 < numkong_over_torch() < 50


def test_scores_are_the_same_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = (unit_vectors(1, 36, 64) + 0.3 * unit_vectors(7, 36, 64)).astype(np.float16)  # alike: a window suits them
    calls = list[int]()

    def counted(x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor) -> None:
        calls.append(len(x))
        by_numkong(x, y, out=out)

    def scores(ratio: float) -> list[np.ndarray]:
        monkeypatch.setattr(integer_products, "numkong_over_torch", lambda: ratio)
        options: dict[str, Any] = {"precision": "int8", "memory_bytes": 10**8, "grid": (6, 6)}
        rules = Aggregation(), Aggregation(window=1)
        return [score_group(stored, np.arange(7), aggregation=rule, **options).patch_scores for rule in rules]

    monkeypatch.setattr(integer_products, "by_numkong", counted)
    torchs = scores(0.9)
    assert not calls
    for one, other in zip(torchs, scores(1.2), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(calls) > 36  # a place of the window each
