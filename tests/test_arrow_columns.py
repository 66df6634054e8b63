"""Arrow helpers against what plain Python gives."""

from __future__ import annotations

from itertools import groupby

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchead.arrow_columns import codes, compact, count, run_boundaries

letters = st.lists(st.sampled_from(["a", "b", None]), max_size=12)


@given(first=letters, seed=st.integers(0, 9))
def test_run_boundaries_are_where_groupby_cuts(first: list[str | None], seed: int) -> None:
    second = [None if (i * seed) % 3 == 0 else "x" for i in range(len(first))]
    rows = pa.table({"first": pa.array(first, pa.string()), "second": pa.array(second, pa.string())})
    lengths = [len(list(run)) for _, run in groupby(zip(first, second, strict=True))]
    expected = [0]
    for length in lengths:
        expected.append(expected[-1] + length)
    assert run_boundaries(rows, ["first", "second"]) == expected


def test_codes_are_equal_for_equal_values_and_minus_one_for_null() -> None:
    a, b, c, d = codes(pa.chunked_array([["x", None], ["y", "x"]]))
    assert (a == d, b, a != c) == (True, -1, True)
    assert codes(pa.chunked_array([], pa.string())).tolist() == []


def test_count() -> None:
    assert count(pa.table({"status": ["ok", "failed", "ok", None]}), "ok") == 2
    assert count(pa.table({"status": pa.array([], pa.string())}), "ok") == 0


@pytest.mark.parametrize("start", [0, 990])
def test_a_compact_slice_holds_only_its_own_rows(start: int) -> None:
    rows = pa.table({"text": [f"{i:0100d}" for i in range(1000)]})
    part = compact(rows.slice(start, 10))
    assert part.to_pydict() == rows.slice(start, 10).to_pydict()
    assert part.get_total_buffer_size() < rows.get_total_buffer_size() / 50
