from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.errors import SettingsError
from patchead.scoring.aggregate import count_references, image_scores, neighbours, ranks, reference_mask
from patchead.scoring.nearest_mean import NearestMean
from tests.reference import oracle


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=12))
def test_references_are_never_oneself_a_copy_or_the_same_part(images: list[tuple[int, int]]) -> None:
    content, part = (np.array(column) for column in zip(*images, strict=True))
    everyone = slice(None)
    mask = reference_mask(content, part, everyone, everyone)
    for i in range(len(images)):
        assert np.flatnonzero(mask[i]).tolist() == oracle.references(i, content.tolist(), part.tolist())
    assert count_references(content, part).tolist() == mask.sum(axis=1).tolist()
    columns = np.arange(len(images))[::-2]
    assert (reference_mask(content, part, columns, columns) == mask[np.ix_(columns, columns)]).all()
    assert count_references(content, part, columns).tolist() == mask[:, columns].sum(axis=1).tolist()


def test_unknown_parts_are_not_one_part() -> None:
    assert reference_mask(np.arange(3), np.full(3, -1), slice(None), slice(None)).sum() == 6


def test_references_of_a_group_larger_than_one_portion() -> None:
    assert (count_references(np.arange(600), np.full(600, -1)) == 599).all()
    assert (count_references(np.arange(600) // 2, np.full(600, -1)) == 598).all()


_MUSC_COUNTS = [(1, 0.3, 1), (3, 0.3, 1), (4, 0.3, 1), (9, 0.3, 2), (10, 0.3, 3), (20_000, 0.3, 6000)]
_FLOAT_TRAPS = [(100, 0.29, 29), (100, 0.57, 57), (10, 0.7, 7), (1000, 0.001, 1), (3, 1 / 3, 1), (3, 1e-9, 1)]
_LIMITS = [(999, 1.0, 999), (10, 1, 10), (0, 0.3, 1)]


@pytest.mark.parametrize(("n", "fraction", "k"), [*_MUSC_COUNTS, *_FLOAT_TRAPS, *_LIMITS])
def test_k_is_counted_exactly(n: int, fraction: float, k: int) -> None:
    assert neighbours(n, fraction) == k
    assert neighbours(np.array([n, n]), fraction).tolist() == [k, k]


@given(n=st.integers(0, 30_000), percent=st.integers(1, 100))
def test_k_is_the_floor_of_the_decimal_fraction(n: int, percent: int) -> None:
    assert neighbours(n, percent / 100) == oracle.count(n, percent)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, math.nan])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(SettingsError, match="`fraction` must be above 0 and at most 1"):
        neighbours(5, fraction)


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 40),
    extra=st.integers(0, 20),
    portion=st.integers(1, 15),
    aggregate=st.sampled_from(["nearest", "farthest"]),
)
@settings(deadline=None)
def test_nearest_mean_is_the_mean_of_the_sorted_whole(
    seed: int, n: int, extra: int, portion: int, aggregate: str
) -> None:
    rng = np.random.default_rng(seed)
    rows, patches = 3, 5
    distances = rng.random((rows, n, patches)).astype(np.float32)
    allowed = rng.random((rows, n)) < 0.8
    k = np.maximum(1, [int(rng.integers(1, 1 + max(1, count))) for count in allowed.sum(axis=1)])
    mean = NearestMean(k, patches, aggregate, "cpu", int(k.max()) + extra)
    order = rng.permutation(n)
    for start in range(0, n, portion):
        cut = order[start : start + portion]
        mean.add(torch.from_numpy(distances[:, cut]), allowed[:, cut])
    got = mean.result().numpy()
    assert got.dtype == np.float32
    assert mean.seen.tolist() == allowed.sum(axis=1).tolist()
    for row in range(rows):
        kept = np.sort(distances[row, allowed[row]].astype(np.float64), axis=0)
        if not len(kept):
            assert np.isnan(got[row]).all()
            continue
        wanted = kept[: k[row]] if aggregate == "nearest" else kept[len(kept) - k[row] :]
        np.testing.assert_allclose(got[row], wanted.mean(axis=0), atol=1e-6)


def test_nearest_mean_holds_no_more_than_its_capacity_and_does_not_depend_on_it() -> None:
    distances, allowed = torch.rand(2, 500, 4), np.ones((2, 500), bool)
    results = []
    for capacity in (30, 31, 60, 500):
        mean = NearestMean(np.array([30, 7]), 4, "nearest", "cpu", capacity)
        mean.add(distances, allowed)
        assert mean._held.shape[2] <= max(capacity, 31)
        results.append(mean.result())
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_nearest_mean_leaves_the_distances_it_is_given_alone() -> None:
    distances = torch.rand(2, 6, 3)
    before = distances.clone()
    mean = NearestMean(np.array([2, 2]), 3, "farthest", "cpu", 3)
    mean.add(distances, np.ones((2, 6), bool))
    mean.result()
    assert torch.equal(distances, before)


def test_nearest_mean_that_met_nothing_is_nan_and_one_that_met_too_few_is_an_error() -> None:
    mean = NearestMean(np.array([1, 2]), 3, "nearest", "cpu", 4)
    assert mean.result().isnan().all()
    mean.add(torch.zeros(2, 1, 3), np.array([[False], [True]]))
    with pytest.raises(ValueError, match="row 1 needs 2 references and was given 1"):
        mean.result()


def test_nearest_mean_refuses_what_it_cannot_count() -> None:
    with pytest.raises(SettingsError, match=r"`aggregate` must be one of nearest, farthest; got 'middle'"):
        NearestMean(np.array([1]), 3, "middle", "cpu", 4)
    for k, capacity in ((0, 4), (5, 4)):
        with pytest.raises(ValueError, match="1 <= k <= capacity"):
            NearestMean(np.array([k]), 3, "nearest", "cpu", capacity)


@pytest.mark.parametrize("percent", [0, 1, 5, 30, 100])
@pytest.mark.parametrize("patches", [1, 35, 49, 100, 1024])
def test_image_score_is_the_mean_of_the_largest(patches: int, percent: int) -> None:
    scores = np.random.default_rng(patches).random((6, patches)).astype(np.float32)
    got = image_scores(scores, percent / 100)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, oracle.image_scores(scores.astype(np.float64), percent), atol=1e-7)


def test_image_score_of_a_row_without_references_is_nan_and_the_input_stays() -> None:
    scores = np.array([[0.5, 0.1], [np.nan, np.nan]], np.float32)
    before = scores.copy()
    got = image_scores(scores, 0)
    assert got[0] == 0.5
    assert math.isnan(got[1])
    np.testing.assert_array_equal(scores, before)
    with pytest.raises(SettingsError, match=r"`top_fraction` must be from 0 to 1; got 1\.5"):
        image_scores(scores, 1.5)


def test_ranks_go_down_from_one_and_ties_go_by_position() -> None:
    got = ranks(np.array([0.2, 0.9, 0.2, np.nan, 1.0, 0.9]))
    assert got.tolist() == [4, 2, 5, 0, 1, 3]
    assert got.dtype == np.int32
    assert ranks(np.array([])).tolist() == []
