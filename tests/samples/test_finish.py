"""PatchEAD+ against the loops of method.md §5: three views as queries and as references, mask, own prompts."""

from __future__ import annotations

import numpy as np
import pytest

from patchead.samples.finish import finish_samples, own_distances
from patchead.samples.mask import ForegroundMask
from patchead.samples.side_arrays import SideArrays
from patchead.samples.views import bring_back, over_all_views
from patchead.scoring.aggregate import Aggregation, image_scores
from patchead.scoring.leave_one_out import score_group
from patchead.scoring.position_level import above_position_level

N, VIEWS, GRID, D = 7, 3, (4, 5), 6
P = GRID[0] * GRID[1]
TURN = np.array([[-1.0, 0, 1], [0, -1, 1]])


def group(seed: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Embeddings (M, P, D) of the views that exist of N samples, valid (N, V, P) and motions (N, V, 2, 3)."""
    rng = np.random.default_rng(seed)
    valid = rng.random((N, VIEWS, P)) > 0.3
    valid[:, 0], valid[2, 1:], valid[4, 2] = True, False, False  # one sample is not aligned, one lacks a view
    shift = np.array([[1.0, 0, 0.2], [0, 1, 0.25]])  # one patch further right and one further down
    motions = np.broadcast_to(np.stack([np.eye(2, 3), shift, TURN]), (N, VIEWS, 2, 3)).astype(np.float32)
    views = [rng.normal(size=(int(v.any(axis=1).sum()), P, D)) for v in valid]
    unit = [(v / np.linalg.norm(v, axis=2, keepdims=True)).astype(np.float16) for v in views]
    return unit, valid, motions


def naive_view_scores(views: list[np.ndarray], valid: np.ndarray) -> np.ndarray:
    """Mean of the 2 smallest distances to the other samples, a sample's being that of its nearest valid patch."""
    patches = []
    for sample, filled in zip(views, valid, strict=True):
        own = iter(sample.astype(np.float64))
        patches.append({v: next(own) for v in range(VIEWS) if filled[v].any()})
    out = np.full((N, VIEWS, P), np.nan)
    for i in range(N):
        for v, queries in patches[i].items():
            for p in range(P):
                if not valid[i, v, p]:
                    continue
                distances = []
                for j in range(N):
                    if j != i:
                        candidates = [patches[j][u][q] for u in patches[j] for q in range(P) if valid[j, u, q]]
                        cosines = [
                            float(queries[p] @ c / np.linalg.norm(queries[p]) / np.linalg.norm(c)) for c in candidates
                        ]
                        distances.append((1 - max(cosines)) / 2)
                out[i, v, p] = np.mean(sorted(distances)[:2])
    return out


@pytest.mark.parametrize("with_mask", [False, True])
def test_aligned_samples_are_scored_as_the_method_says(with_mask: bool) -> None:
    views, valid, motions = group(0)
    attention = np.random.default_rng(1).random((N, VIEWS * P)).astype(np.float16) / 5
    embeddings = np.stack([over_all_views(v, filled) for v, filled in zip(views, valid, strict=True)])
    raw = score_group(embeddings, np.arange(N), aggregation=Aggregation(fraction=0.34), memory_bytes=10**8).patch_scores
    side_arrays = SideArrays(attention=attention if with_mask else None, valid=valid, motions=motions)
    foreground_mask = ForegroundMask(threshold=0.1, background=0.5) if with_mask else None
    found = finish_samples(raw, GRID, side_arrays, mask=foreground_mask, top_fraction=0.15)

    naive = naive_view_scores(views, valid)
    if with_mask:
        naive *= np.where(attention.reshape(N, VIEWS, P).astype(float) > 0.1, 1.0, 0.5)
    for i in range(N):
        there = [v for v in range(VIEWS) if valid[i, v].any()]
        tops = []
        for v in there:
            scores = sorted(naive[i, v][valid[i, v]], reverse=True)
            tops.append(np.mean(scores[: max(1, 15 * len(scores) // 100)]))
        assert found.image_scores[i] == pytest.approx(np.mean(tops), abs=1e-5)
        for row in range(GRID[0]):
            for column in range(GRID[1]):
                seen = [naive[i, 0].reshape(GRID)[row, column]]
                inside = row + 1 < GRID[0] and column + 1 < GRID[1]
                if 1 in there and inside and valid[i, 1].reshape(GRID)[row + 1, column + 1]:
                    seen.append(naive[i, 1].reshape(GRID)[row + 1, column + 1])
                if 2 in there and valid[i, 2].reshape(GRID)[-1 - row, -1 - column]:
                    seen.append(naive[i, 2].reshape(GRID)[-1 - row, -1 - column])
                assert found.patch_scores[i, row, column] == pytest.approx(np.mean(seen), abs=1e-5)


def test_an_unaligned_sample_is_scored_as_it_is() -> None:
    raw = np.random.default_rng(3).random((1, VIEWS * P)).astype(np.float32)
    valid, motions = np.zeros((1, VIEWS, P), bool), np.full((1, VIEWS, 2, 3), np.nan, np.float32)
    valid[:, 0] = True
    plain = finish_samples(raw[:, :P], GRID, SideArrays(), mask=None, top_fraction=0.1)
    found = finish_samples(raw, GRID, SideArrays(valid=valid, motions=motions), mask=None, top_fraction=0.1)
    np.testing.assert_array_equal(found.patch_scores, plain.patch_scores)
    np.testing.assert_allclose(found.image_scores, plain.image_scores, atol=1e-7)


def test_prompts_warped_onto_the_query_count_as_its_references() -> None:
    rng = np.random.default_rng(4)
    valid = np.ones((4, P), bool)
    valid[1, :7], valid[3] = False, False
    views = rng.normal(size=(3, P, D))
    embeddings = (views / np.linalg.norm(views, axis=2, keepdims=True)).astype(np.float16)
    own = own_distances(embeddings, valid)
    allowed = np.concatenate([embeddings[1][valid[1]], embeddings[2]]).astype(np.float64)
    expected = (1 - (embeddings[0].astype(np.float64) @ allowed.T).max(axis=1)) / 2
    np.testing.assert_allclose(own, expected, atol=1e-3)
    assert np.isinf(own_distances(embeddings[:1], valid * [[True], [False], [False], [False]])).all()

    raw = rng.random((2, P)).astype(np.float32)
    side_arrays = SideArrays(own=np.stack([own, np.full(P, np.inf, np.float32)]))
    found = finish_samples(raw, GRID, side_arrays, mask=None, top_fraction=0)
    np.testing.assert_array_equal(found.patch_scores.reshape(2, P), [np.minimum(raw[0], own), raw[1]])


def test_a_mask_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask needs the attention"):
        finish_samples(np.zeros((1, P), np.float32), GRID, SideArrays(), mask=ForegroundMask(), top_fraction=0)


def test_columns_and_joining_keep_everything() -> None:
    _, valid, motions = group(5)
    whole = SideArrays(valid=valid, motions=motions, aligned=valid[:, 1:].any(axis=(1, 2)))
    columns = whole.columns()
    assert set(columns) == {"valid", "motions", "aligned"}
    assert all(value.ndim > 1 for value in columns.values())
    halves = [
        SideArrays.of_columns({name: value[s] for name, value in columns.items()}) for s in (slice(3), slice(3, None))
    ]
    joined = SideArrays.joined(halves)
    np.testing.assert_array_equal(joined.aligned, whole.aligned)
    np.testing.assert_array_equal(joined.motions, motions)
    assert joined.own is None


def test_bringing_back_ignores_what_is_not_valid() -> None:
    valid = np.zeros(GRID, bool)
    back, seen = bring_back(np.ones(GRID, np.float32), valid, np.eye(2, 3))
    assert not seen.any()
    assert not back.any()


def test_the_position_level_is_of_what_the_mask_left_and_of_no_moved_views() -> None:
    rng = np.random.default_rng(0)
    raw = rng.random((4, P)).astype(np.float32)
    side_arrays = SideArrays(attention=rng.random((4, P)).astype(np.float32))
    plain = finish_samples(raw, GRID, side_arrays, mask=ForegroundMask(), top_fraction=0.1)
    found = finish_samples(raw, GRID, side_arrays, mask=ForegroundMask(), top_fraction=0.1, position_level=True)
    expected = above_position_level(plain.patch_scores.reshape(4, -1))
    np.testing.assert_allclose(found.patch_scores.reshape(4, -1), expected, atol=1e-7)
    np.testing.assert_allclose(found.image_scores, image_scores(expected, 0.1), atol=1e-7)
    moved = SideArrays(valid=np.ones((4, 3, P), bool), motions=np.zeros((4, 3, 2, 3)))
    with pytest.raises(ValueError, match="no position level"):
        finish_samples(np.tile(raw, 3), GRID, moved, mask=None, top_fraction=0.1, position_level=True)
