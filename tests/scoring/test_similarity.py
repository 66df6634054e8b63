from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.scoring import similarity
from patchead.scoring.precision import DTYPES, prepare
from tests.helpers.groups import group
from tests.reference import oracle

BUDGET = 1 << 30


def _expected(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 (Na, Nb, P) straight from method.md §2."""
    cosines = np.einsum("ipd,jqd->ijpq", oracle.unit(a), oracle.unit(b))
    return (1 - cosines.max(axis=3)) / 2


@given(
    na=st.integers(1, 5),
    nb=st.integers(1, 5),
    p=st.sampled_from([1, 2, 7, 16, 35, 49]),
    q=st.sampled_from([1, 3, 16, 35]),
    budget=st.sampled_from([600, 1000, 4096, 20_000, BUDGET]),
)
@settings(max_examples=40, deadline=None)
def test_tile_gives_both_directions_whatever_the_budget(na: int, nb: int, p: int, q: int, budget: int) -> None:
    a, b = group(na, p, seed=1), group(nb, q, seed=2)
    ab, ba = similarity.tile(prepare(a), prepare(b), budget_bytes=budget)
    assert ab.dtype == ba.dtype == torch.float32
    assert ab.is_contiguous()
    assert ba.is_contiguous()
    np.testing.assert_allclose(ab, _expected(a, b), atol=1e-6)
    np.testing.assert_allclose(ba, _expected(b, a), atol=1e-6)


def test_one_nearest_distance_is_the_loop_over_the_patches() -> None:
    embeddings = group(2, 6)
    z = oracle.unit(embeddings)
    a = prepare(embeddings)
    ab = similarity.one_way(a[:1], a[1:], budget_bytes=BUDGET)
    for p in range(6):
        assert ab[0, 0, p].item() == pytest.approx(oracle.nearest_distance(z, 0, p, 1), abs=1e-6)


@pytest.mark.parametrize("budget", [420, 5000, BUDGET])
def test_tile_self_is_tile_off_the_diagonal_and_zero_on_it(budget: int) -> None:
    a = prepare(group(7, 35))
    expected, _ = similarity.tile(a, a, budget_bytes=BUDGET)
    got = similarity.tile_self(a, budget_bytes=budget)
    off = ~torch.eye(7, dtype=torch.bool)
    torch.testing.assert_close(got[off], expected[off], atol=1e-6, rtol=0)
    assert got.diagonal().abs().max() == 0


def test_tile_self_multiplies_each_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    n, p = 12, 1024
    values = _count_products(monkeypatch)
    similarity.tile_self(prepare(group(n, p, 4)), budget_bytes=1 << 20)
    assert sum(values) == n * (n - 1) // 2 * p * p


def test_one_way_is_the_first_of_tile() -> None:
    a, b = prepare(group(3, 49, seed=1)), prepare(group(4, 35, seed=2))
    both, _ = similarity.tile(a, b, budget_bytes=BUDGET)
    assert torch.equal(similarity.one_way(a, b, budget_bytes=BUDGET), both)


@pytest.mark.parametrize("budget", [100, 5000, 50_000, 300_000, BUDGET])
def test_no_product_is_larger_than_the_budget_or_the_cache(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    p, q = (7, 5) if budget < 1000 else (300, 530)
    values = _count_products(monkeypatch)
    similarity.tile(prepare(group(3, p, 4)), prepare(group(4, q, 4)), budget_bytes=budget)
    share = int(similarity.CACHE_SHARES[torch.float32] * similarity.l2_bytes())
    assert max(values) * 4 <= min(budget // torch.get_num_threads(), share)
    assert sum(values) == 3 * p * 4 * q


def test_a_tile_allocates_the_results_and_products_within_the_budget(
    torch_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    real = torch.empty

    def counted(*size: object, **options: object) -> torch.Tensor:
        made: torch.Tensor = real(*size, **options)  # type: ignore[call-overload]
        taken.append(made.nbytes)
        return made

    a, b = prepare(group(4, 300)), prepare(group(4, 300))
    monkeypatch.setattr(torch, "empty", counted)
    similarity.tile(a, b, budget_bytes=100_000)
    assert taken
    assert max(taken) * torch.get_num_threads() <= 100_000


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-3), ("bf16", 8e-3)])
def test_half_precision_stays_near_float32(precision: str, tolerance: float) -> None:
    a, b = group(3, 49, 64, seed=1), group(4, 35, 64, seed=2)
    expected, _ = similarity.tile(prepare(a), prepare(b), budget_bytes=BUDGET)
    halves = [prepare(z, precision=precision) for z in (a, b)]
    assert halves[0].dtype == DTYPES[precision]
    got, reverse = similarity.tile(halves[0], halves[1], budget_bytes=10_000)
    assert got.dtype == reverse.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)


def test_distances_of_equal_and_opposite_patches_are_exactly_within_zero_and_one() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 64, 48)).astype(np.float16)
    a = prepare(z)
    same = similarity.one_way(a, a, budget_bytes=BUDGET)
    opposite = similarity.one_way(a[:, :1], -a[:, :1], budget_bytes=BUDGET)
    assert same.min() >= 0
    assert same.max() <= 1e-6
    assert opposite.max() <= 1
    assert opposite.item() == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_compared_is_refused() -> None:
    a = prepare(group(2, 4, 8))
    for other in (prepare(group(2, 4, 16)), a.double(), a[0]):
        with pytest.raises(ValueError, match="must share D, dtype and device"):
            similarity.tile(a, other, budget_bytes=BUDGET)
    least = 4 * 4 * torch.get_num_threads()
    with pytest.raises(ValueError, match=f"budget_bytes must be at least {least}; got {least - 1}"):
        similarity.tile(a, a, budget_bytes=least - 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("shape", [(1, 40, 1, 33), (2, 40, 7, 3), (9, 5, 2, 700), (5, 1100, 3, 20)])
def test_results_do_not_depend_on_the_number_of_threads(precision: str, shape: tuple[int, int, int, int]) -> None:
    na, p, nb, q = shape
    a, b = (prepare(group(n, x, 32, seed=n), precision=precision) for n, x in ((na, p), (nb, q)))
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append((*similarity.tile(a, b, budget_bytes=100_000), similarity.tile_self(a, budget_bytes=BUDGET)))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            torch.testing.assert_close(got, expected, atol=0 if precision == "int8" else 1e-6, rtol=0)


def _count_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Values of every matrix multiplication from now on."""
    values: list[int] = []
    real = torch.mm

    def counted(x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        values.append(out.numel())
        return real(x, y, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    return values
