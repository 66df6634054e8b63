from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from patchead.scoring.aggregate import reference_mask
from patchead.scoring.burn_out import BurnOut, Evidence, jumps, mean_behind
from patchead.scoring.memory_budget import PATCHES_KEPT, neighbours_tested
from tests.helpers.repeats import strip
from tests.reference import repeats as oracle


def evidence_of(distances: np.ndarray, allowed: np.ndarray, cuts: list[np.ndarray], k: int = 3) -> Evidence:
    n, _, patches = distances.shape
    test = BurnOut(n, patches, n, int(allowed.sum(axis=1).max()), k, "cpu")
    for columns in cuts:
        test.add(torch.from_numpy(distances[:, columns]), allowed[:, columns], columns)
    return test.result()


@pytest.mark.parametrize("seed", range(4))
def test_the_evidence_is_that_of_the_loops(seed: int) -> None:
    distances = strip(24, 20, shared=(2, 5, 9, 11), seed=seed)
    content = np.arange(24)
    content[7] = content[3]
    allowed = reference_mask(content, np.full(24, -1), slice(None), slice(None))
    found = evidence_of(distances, allowed, [np.arange(24)])
    expected = oracle.burn_out(distances.tolist(), allowed.tolist(), 3, neighbours_tested(int(allowed.sum(1).max())))
    assert any(expected)
    for i, rows in enumerate(expected):
        assert found.patch[i].tolist() == [row[0] for row in rows] + [-1] * (PATCHES_KEPT - len(rows))
        for place, (_, p_value, behind, before) in enumerate(rows):
            assert found.p_value[i, place] == pytest.approx(p_value, rel=1e-3)
            assert found.behind[i, place] == pytest.approx(behind, rel=1e-5)
            assert found.images[i, place, : len(before)].tolist() == before
            assert (found.images[i, place, len(before) :] == -1).all()


def test_neither_the_portions_nor_their_order_decide() -> None:
    distances = strip(30, 16, shared=(1, 4, 8, 20))
    allowed = ~np.eye(30, dtype=bool)
    whole = evidence_of(distances, allowed, [np.arange(30)])
    assert (whole.patch >= 0).any()
    for size, order in (
        (1, np.arange(30)),
        (7, np.arange(30)[::-1].copy()),
        (30, np.random.default_rng(0).permutation(30)),
    ):
        other = evidence_of(distances, allowed, [order[i : i + size] for i in range(0, 30, size)])
        for field in fields(Evidence):
            np.testing.assert_array_equal(getattr(other, field.name), getattr(whole, field.name), field.name)


def test_what_four_images_share_is_evidence_that_names_them() -> None:
    shared = (2, 5, 9, 11)
    found = evidence_of(strip(40, 25, shared=shared), ~np.eye(40, dtype=bool), [np.arange(40)])
    for image in shared:
        assert found.patch[image, 0] == 0
        assert set(found.images[image, 0][found.images[image, 0] >= 0]) == set(shared) - {image}
        assert found.p_value[image, 0] < 1e-4


def test_images_that_are_alike_all_over_are_no_evidence() -> None:
    """Every patch of a lot's images is nearer to its own lot; that is why distances are relative."""
    distances, lot = strip(40, 25), np.arange(40) < 6
    distances[np.ix_(lot, lot)] *= 0.3
    found = evidence_of(distances, ~np.eye(40, dtype=bool), [np.arange(40)])
    assert (found.patch[lot] >= 0).sum() <= 1


def test_blocks_of_a_group_are_joined_and_a_group_of_few_has_no_evidence() -> None:
    distances, allowed = strip(20, 8, shared=(0, 1, 2)), ~np.eye(20, dtype=bool)
    whole = evidence_of(distances, allowed, [np.arange(20)])
    parts = []
    for rows in (slice(0, 8), slice(8, 20)):
        test = BurnOut(rows.stop - rows.start, 8, 20, 19, 3, "cpu")
        test.add(torch.from_numpy(distances[rows]), allowed[rows], np.arange(20))
        parts.append(test.result())
    joined = Evidence.joined(parts)
    for field in fields(Evidence):
        np.testing.assert_array_equal(getattr(joined, field.name), getattr(whole, field.name))
    few = evidence_of(strip(4, 8), ~np.eye(4, dtype=bool), [np.arange(4)])
    assert (few.patch == -1).all()
    nobody = evidence_of(strip(4, 8), np.zeros((4, 4), bool), [np.arange(4)])
    assert (nobody.patch == -1).all()


def test_a_jump_by_hand() -> None:
    """Two patches that grow evenly, and one whose third neighbour is ten times as far as its second."""
    even = np.array([1.0, 1.2, 1.3, 1.37, 1.42])
    jumping = np.array([1.0, 1.01, 10.0, 10.1, 10.2])
    before, p_value = jumps(np.stack([even, jumping, even]))
    assert before[1] == 2
    rate = 4 / sum(r * np.log(even[r] / even[r - 1]) for r in range(1, 5))
    assert p_value[1] == pytest.approx(4 * np.exp(-rate * 2 * np.log(10 / 1.01)))
    assert mean_behind(jumping[None], before[1:2], 2).tolist() == pytest.approx([10.05])
