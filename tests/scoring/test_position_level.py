from __future__ import annotations

import numpy as np
import pytest

from patchead.scoring.position_level import above_position_level
from tests.reference import repeats


@pytest.mark.parametrize("n", [1, 4, 9])
def test_the_level_is_that_of_the_loops(n: int) -> None:
    scores = np.random.default_rng(n).random((n, 7)).astype(np.float32)
    np.testing.assert_allclose(above_position_level(scores), repeats.above_position_level(scores.tolist()), atol=1e-6)


def test_images_without_a_score_have_no_say() -> None:
    scores = np.random.default_rng(0).random((6, 5)).astype(np.float32)
    scores[2] = np.nan
    found = above_position_level(scores)
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, 0), above_position_level(np.delete(scores, 2, 0)))
    assert np.isnan(above_position_level(scores[2:3])).all()
