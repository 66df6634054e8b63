from __future__ import annotations

import numpy as np
import pytest
import torch

from patchead.scoring.aggregate import reference_mask
from patchead.scoring.burn_out import BurnOut
from patchead.scoring.repeats import Repeat, find_repeats, parts_and_repeats, repeat_groups
from tests.helpers.repeats import strip

GRID = (6, 6)


def repeats_of(distances: np.ndarray, k: int = 3, grid: tuple[int, int] = GRID) -> list[Repeat]:
    n, _, patches = distances.shape
    allowed = ~np.eye(n, dtype=bool)
    test = BurnOut(n, patches, n, n - 1, k, "cpu")
    test.add(torch.from_numpy(distances), allowed, np.arange(n))
    far = np.where(allowed[:, :, None], distances, 9)
    return find_repeats(test.result(), np.sort(far, axis=1)[:, :k].mean(axis=1), grid)


@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_images_that_share_a_region_are_found_and_no_other(count: int) -> None:
    shared = tuple(range(1, 3 * count, 3))
    (found,) = repeats_of(strip(40, 36, shared, at=(7, 8, 13)))
    assert tuple(found.images) == shared
    assert {int(patch) for patch in found.at[:, 1]} <= {7, 8, 13}
    assert set(found.at[:, 0]) == set(shared)


def test_two_defects_are_two_repeats_the_larger_first() -> None:
    distances = strip(60, 36, (0, 3, 6, 9, 12), at=(7, 8))
    other = strip(60, 36, (20, 25, 30), seed=1, at=(28,))
    distances[[20, 25, 30]] = other[[20, 25, 30]]
    found = repeats_of(distances)
    assert [tuple(repeat.images) for repeat in found] == [(0, 3, 6, 9, 12), (20, 25, 30)]
    assert repeat_groups(found, 60)[[0, 12, 20, 30, 40]].tolist() == [1, 1, 2, 2, 0]


def test_what_is_no_repeated_defect() -> None:
    """A group like any; a pair; a third of the group; marks in many places, as of another make."""
    assert repeats_of(strip(40, 36)) == []
    assert repeats_of(strip(40, 36, (3, 9), at=(7,))) == []
    assert repeats_of(strip(30, 36, tuple(range(10)), at=(7,))) == []
    assert repeats_of(strip(40, 36, (1, 4, 7, 10, 13), at=(0, 5, 30, 35))) == []


def test_where_a_patch_lies_is_counted_in_its_own_view() -> None:
    """Patches 7 and 43 are the same place of two views of a 6 x 6 grid."""
    (found,) = repeats_of(strip(40, 72, (1, 4, 7, 10), at=(7, 43)))
    assert tuple(found.images) == (1, 4, 7, 10)


def test_images_of_one_repeat_are_no_references_of_each_other() -> None:
    part = parts_and_repeats(np.array([0, 0, -1, -1, -1]), np.array([0, 0, 1, 1, 0], np.int32))
    allowed = reference_mask(np.arange(5), part, slice(None), slice(None))
    assert allowed.astype(int).tolist() == [
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [1, 1, 0, 0, 1],
        [1, 1, 0, 0, 1],
        [1, 1, 1, 1, 0],
    ]


def test_where_a_region_lies_is_said_where_it_is_one_place() -> None:
    """On a 6 x 6 grid: patches 7 and 8 are the second and third of the second line; 0 and 35 are two corners."""
    same = Repeat(np.array([1, 4]), np.array([[1, 7], [1, 8], [4, 7], [4, 8]]))
    assert same.box(GRID) == pytest.approx((1 / 6, 1 / 6, 2 / 6, 1 / 6))
    assert same.facts(3, GRID) == {
        "repeat_group": 3,
        "images": 2,
        "x": 0.1667,
        "y": 0.1667,
        "width": 0.3333,
        "height": 0.1667,
    }
    elsewhere = Repeat(np.array([1, 4]), np.array([[1, 0], [4, 35]]))
    assert elsewhere.box(GRID) is None
    assert elsewhere.facts(1, GRID)["x"] is None
    assert Repeat(np.array([1, 4]), np.array([[1, 40], [4, 41]])).box(GRID) is None  # of another view


def test_images_without_a_score_take_no_part() -> None:
    n, allowed = 30, np.zeros((30, 30), bool)
    test = BurnOut(n, 36, n, 1, 3, "cpu")
    test.add(torch.from_numpy(strip(n, 36)), allowed, np.arange(n))
    assert find_repeats(test.result(), np.full((n, 36), np.nan, np.float32), GRID) == []
