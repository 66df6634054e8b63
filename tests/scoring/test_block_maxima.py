from __future__ import annotations

import numpy as np
import pytest
import torch

from patchead.scoring import block_maxima, similarity
from patchead.scoring.precision import prepare
from tests.helpers.groups import group

BUDGET = 1 << 30


def test_int8_maxima_are_those_of_the_integer_products() -> None:
    a, b = prepare(group(3, 49, 64, seed=1), precision="int8"), prepare(group(4, 35, 64, seed=2), precision="int8")
    ab = torch.empty(3, 4, 49)
    ba = torch.empty(4, 3, 35)
    similarity.cosine_maxima(a, b, ab, ba, budget_bytes=3000)
    exact = np.einsum("ipd,jqd->ijpq", a.numpy().astype(np.int64), b.numpy().astype(np.int64))
    np.testing.assert_array_equal(ab, exact.max(axis=3))
    np.testing.assert_array_equal(ba, exact.max(axis=2).transpose(1, 0, 2))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("shape", [(1, 700, 1, 300), (3, 50, 4, 30), (2, 300, 3, 70), (2, 129, 1, 900)])
def test_maxima_of_a_few_rows_at_a_time_are_those_of_all(
    monkeypatch: pytest.MonkeyPatch, precision: str, shape: tuple[int, int, int, int]
) -> None:
    na, p, nb, q = shape
    a, b = (prepare(group(n, x, 24, seed=n), precision=precision) for n, x in ((na, p), (nb, q)))
    calls = _count_maxima(monkeypatch)
    expected = similarity.tile(a, b, budget_bytes=BUDGET)
    in_one_go = len(calls)
    monkeypatch.setattr(block_maxima, "_MAXIMA_SHARE", 4000 / block_maxima.l2_bytes())
    got = similarity.tile(a, b, budget_bytes=BUDGET)
    assert len(calls) - in_one_go > 2 * in_one_go
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("patches", "limit", "columns"), [(1024, 256, 256), (1369, 191, 128), (576, 300, 192), (70, 40, 40)]
)
def test_parts_of_an_image_are_of_the_width_that_maxima_are_fast_at(
    monkeypatch: pytest.MonkeyPatch, patches: int, limit: int, columns: int
) -> None:
    monkeypatch.setattr(similarity, "l2_bytes", lambda: 1 << 30)  # the budget decides
    budget = 4 * patches * limit * torch.get_num_threads()
    a = prepare(group(1, patches, 4))
    assert similarity.block_shape(a, a, budget_bytes=budget) == (patches, columns)


@pytest.mark.parametrize("rows", [1, 7, 8, 32, 33])
def test_padding_repeats_the_last_row_so_that_no_maximum_changes(rows: int) -> None:
    x = torch.arange(rows * 4, dtype=torch.int8).view(rows, 4)
    got = block_maxima.padded(x, 8)
    assert len(got) % 8 == 0
    assert len(got) - rows < 8
    assert torch.equal(got[:rows], x)
    assert all(torch.equal(row, x[-1]) for row in got[rows:])


def _count_maxima(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """An entry for every reduction from now on."""
    calls: list[object] = []
    real = torch.amax

    def counted(x: torch.Tensor, dim: int, *, out: torch.Tensor) -> torch.Tensor:
        calls.append(dim)
        return real(x, dim, out=out)

    monkeypatch.setattr(torch, "amax", counted)
    return calls
