"""Regions as vectors: the patches of a box, those that are anomalous, and the mean of what sets them apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchead.maps.heatmap import heatmap
from patchead.naming.region_vectors import MOST_PATCHES, anomalous_patches, patches_of_box, region_vectors
from tests.reference import naming as oracle


def units(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.3), (7, 0.3), (7, 1.0)])
def test_vectors_are_those_of_the_plain_loops(count: int, fraction: float) -> None:
    patches, references = units(9, 16), [units(5 + j, 16, seed=j + 1) for j in range(count)]
    owner = np.array([0, 1, 1, 2, 0, 2, 2, 2, 1])
    found = region_vectors(patches, owner, references, fraction)
    for region in range(3):
        expected = oracle.region_vector(patches[owner == region], references, fraction)
        np.testing.assert_allclose(found[region], expected, atol=2e-6)


def test_a_region_that_is_as_it_should_be_has_no_direction() -> None:
    patches = units(2, 8)
    assert not region_vectors(patches, np.zeros(2, int), [patches])[0].any()


def test_what_cannot_be_described_is_refused() -> None:
    patches = units(2, 8)
    with pytest.raises(ValueError, match="need a reference image"):
        region_vectors(patches, np.zeros(2, int), [])
    with pytest.raises(ValueError, match="a patch of each region"):
        region_vectors(patches, np.array([0, 2]), [patches])


@given(
    st.sampled_from(["squash", "crop", "pad"]),
    st.tuples(st.integers(40, 90), st.integers(40, 90)),
    st.tuples(st.integers(2, 6), st.integers(2, 6)),
    st.data(),
)
def test_patches_of_a_box_are_where_the_map_shows_them(
    fit: str, size: tuple[int, int], grid: tuple[int, int], data: st.DataObject
) -> None:
    """A patch whose centre a box holds lights that place up in the map of its image."""
    width, height = size
    x, y = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    found = patches_of_box((x, y, 8, 8), grid, width, height, fit)
    assert len(found) and found.min() >= 0 and found.max() < grid[0] * grid[1]
    scores = np.zeros(grid, np.float32)
    scores.ravel()[found] = 1
    shown = heatmap(scores, width, height, max_side=max(width, height), fit=fit)
    inside = {"squash": True, "pad": True, "crop": _seen(x, y, width, height)}[fit]
    if inside:
        assert shown[y : y + 8, x : x + 8].max() > 0.3


def _seen(x: int, y: int, width: int, height: int) -> bool:
    """Whether the middle of the box lies in the centre square."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left <= x + 4 < left + side and top <= y + 4 < top + side


def test_of_a_large_box_the_highest_patches_describe_it() -> None:
    scores = np.random.default_rng(0).uniform(0.9, 1, (20, 20))
    scores[:10] = 0.1
    places = np.arange(200, 400)
    found = anomalous_patches(scores, places)
    assert len(found) == MOST_PATCHES
    assert scores.ravel()[found].min() >= np.sort(scores.ravel())[-MOST_PATCHES]


def test_a_box_of_normal_patches_has_its_highest() -> None:
    scores = np.array([[0.5, 0.5, 0.5, 0.2, 0.3]])
    assert anomalous_patches(scores, np.array([3, 4])).tolist() == [4]
