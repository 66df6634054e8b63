from __future__ import annotations

import numpy as np
import pytest
import torch

from patchead.errors import PatcheadError
from patchead.scoring import subspace
from patchead.scoring.aggregate import image_scores
from patchead.scoring.subspace import SubspaceFit, subspace_residuals
from tests.helpers.groups import group
from tests.reference import repeats


def residuals(embeddings: np.ndarray, size: int) -> np.ndarray:
    """float32 (N, P), the group read ``size`` images at a time."""
    n, _, dim = embeddings.shape
    found = subspace_residuals(lambda: (embeddings[i : i + size] for i in range(0, n, size)), dim)
    return np.concatenate(list(found))


@pytest.mark.parametrize(("n", "p", "d"), [(7, 6, 5), (12, 25, 16), (2, 3, 32), (5, 10, 8)])
def test_residuals_are_those_of_the_loops(n: int, p: int, d: int) -> None:
    embeddings = group(n, p, d)
    np.testing.assert_allclose(residuals(embeddings, n), repeats.subspace_residuals(embeddings), atol=2e-6)


def test_neither_the_blocks_nor_the_portions_in_hand_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = group(13, 9, 16)
    whole = residuals(embeddings, 13)
    for size, values in ((1, 1), (4, 300), (13, 1 << 20)):
        monkeypatch.setattr(subspace, "_VALUES", values)
        np.testing.assert_allclose(residuals(embeddings, size), whole, atol=1e-6)
        assert np.array_equal(residuals(embeddings, size), residuals(embeddings, size))


def test_the_order_of_the_images_decides_no_more_than_which_patches_are_taken() -> None:
    """Sums are sums: the blocks may come in any order as long as each says where it begins."""
    embeddings, forth, back = group(10, 8, 16), SubspaceFit(16), SubspaceFit(16)
    for first in (0, 5):
        forth.add(embeddings[first : first + 5], first)
    for first in (5, 0):
        back.add(embeddings[first : first + 5], first)
    for fit in (forth, back):
        assert fit.subspace().directions.shape == forth.subspace().directions.shape
    np.testing.assert_allclose(forth.subspace().residuals(embeddings), back.subspace().residuals(embeddings), atol=1e-6)


def test_a_defect_that_a_fifth_of_the_group_shares_still_stands_out() -> None:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((40, 30, 4)) @ rng.standard_normal((4, 64)) + 0.05 * rng.standard_normal((40, 30, 64))
    normal[:8, 3] += 3 * rng.standard_normal(64)  # the same in eight images
    embeddings = (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float16)
    scores = image_scores(residuals(embeddings, 16), 0.01)
    assert scores[:8].min() > scores[8:].max()


def test_a_group_of_one_vector_has_no_residual() -> None:
    one = np.zeros((6, 10, 8), np.float16)
    one[..., 0] = 1
    assert residuals(one, 2).max() < 1e-6


def test_what_is_held_does_not_grow_with_the_group() -> None:
    """The sums are (D,) and (D, D), whatever was added."""
    fit = SubspaceFit(16)
    for first in range(0, 60, 6):
        fit.add(group(6, 20, 16, seed=first), first)
    held = [value for value in vars(fit).values() if isinstance(value, torch.Tensor)]
    assert sum(value.nbytes for value in held) == 8 * (16 + 16 * 16)


def test_a_vector_without_a_direction_is_refused() -> None:
    embeddings = group(6, 10, 8)
    embeddings[4, 1] = 0
    with pytest.raises(PatcheadError, match="zero, infinite or NaN"):
        residuals(embeddings, 3)
    with pytest.raises(ValueError, match="at least one patch"):
        SubspaceFit(8).subspace()
