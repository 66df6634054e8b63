"""Families: clusters as the plain loops find them, whatever the order, and those of earlier nights again."""

from __future__ import annotations

import numpy as np
import pytest

from patchead.naming import families
from patchead.naming.families import find_families, joined, match
from tests.reference import naming as oracle


def around(*centres: int, each: int = 5, noise: float = 0.2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.concatenate([np.eye(12)[c] + noise * rng.normal(size=(each, 12)) for c in centres])
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("distance", [0.2, 0.4, 0.7])
def test_clusters_are_those_of_the_plain_loops(distance: float) -> None:
    vectors = around(0, 1, 2, each=6, noise=0.35)
    found = find_families(vectors, distance)
    assert {frozenset(of.members.tolist()) for of in found} == oracle.clusters(vectors.astype(np.float64), distance)
    for of in found:
        apart = 1 - vectors[of.members].astype(float) @ vectors[of.members].astype(float).T
        assert of.medoid == of.members[apart.sum(axis=1).argmin()]
        assert 0 < of.reach <= distance


def test_the_order_of_the_regions_changes_nothing() -> None:
    vectors = around(0, 1, 2, each=7, noise=0.4)
    order = np.random.default_rng(1).permutation(len(vectors))
    first, second = find_families(vectors, 0.5), find_families(vectors[order], 0.5)
    assert {(frozenset(of.members.tolist()), of.medoid, of.reach) for of in first} == {
        (frozenset(order[of.members].tolist()), int(order[of.medoid]), of.reach) for of in second
    }


def test_no_region_and_one_region() -> None:
    assert find_families(np.empty((0, 12), np.float32), 0.5) == []
    (only,) = find_families(around(0, each=1), 0.5)
    assert (only.members.tolist(), only.medoid, only.reach) == ([0], 0, 0.5)


def test_regions_beyond_the_most_join_the_nearest_family_or_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = around(0, 1, each=12, noise=0.1)
    monkeypatch.setattr(families, "MOST", 16)
    found = find_families(vectors, 0.5)
    assert sorted(len(of.members) for of in found) == [12, 12]


def test_a_family_is_found_again_within_its_reach_and_the_nearest_wins() -> None:
    known = around(0, 1, each=1, noise=0.0)
    tonight = around(0, 1, 5, each=1, noise=0.05, seed=3)
    assert match(tonight, known, np.array([0.3, 0.3])).tolist() == [0, 1, -1]
    assert match(tonight, known, np.array([0.0001, 0.3])).tolist() == [-1, 1, -1]
    assert match(tonight, known[:0], np.empty(0)).tolist() == [-1, -1, -1]


def test_families_that_are_one_of_an_earlier_night_become_one() -> None:
    vectors = around(0, each=6, noise=0.3)
    parts = find_families(vectors, 0.05)
    assert len(parts) > 1
    whole = joined(vectors, parts, 0.6)
    assert whole.members.tolist() == list(range(6))
    assert whole.medoid == find_families(vectors, 1.9)[0].medoid
