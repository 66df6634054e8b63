"""Views to embeddings: an image that cannot be compared is left out, and the others do not notice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from patchead.samples.align import Alignment
from patchead.samples.embed import embed_samples
from patchead.samples.recipe import SampleRecipe

SIDE, GRID, PATCHES, DIM = 4, (2, 2), 4, 6
VIEWS = [[True, True, False], [True, True, True], [True, False, False]]


class Striped:
    """Stands for an encoder: vectors drawn from a view's first pixel; 0 gives a zero vector, 255 an infinite one."""

    image_size, n_patches, device = SIDE, PATCHES, "cpu"

    def __init__(self, *, attention: bool = False) -> None:
        self.attention = attention

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        found = []
        for value in pixels[:, 0, 0, 0].tolist():
            vectors = np.random.default_rng(value).normal(size=(PATCHES, DIM))
            vectors[2] *= {0: 0.0, 255: np.inf}.get(value, 1.0)
            found.append(vectors)
        return np.array(found, np.float16)

    def embed_with_attention(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.embed(pixels), np.repeat(pixels[:, 0, 0, :1], PATCHES, axis=1).astype(np.float16) / 256


def run(
    values: list[list[int]], encoder: Striped, recipe: SampleRecipe
) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    """Samples whose existing views, those of `VIEWS`, have these first pixels."""
    pixels = np.array([value for sample in values for value in sample], np.uint8)
    pixels = np.broadcast_to(pixels[:, None, None, None], (len(pixels), SIDE, SIDE, 3))
    valid = np.repeat(np.array(VIEWS)[..., None], PATCHES, axis=2)
    motions = np.arange(valid.shape[0] * valid.shape[1] * 6, dtype=np.float32).reshape(*valid.shape[:2], 2, 3)
    embeddings, side_arrays, usable = embed_samples(encoder, pixels, valid, motions, recipe, batch_size=2)  # type: ignore[arg-type]
    return embeddings, side_arrays.columns(), usable


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("few_shot", [False, True])
@pytest.mark.parametrize("broken", [0, 255])
def test_one_broken_view_leaves_its_sample_out(attention: bool, few_shot: bool, broken: int) -> None:
    recipe, encoder = SampleRecipe(SIDE, "squash", GRID, Alignment(), few_shot=few_shot), Striped(attention=attention)
    whole, side_arrays, every = run([[1, 2], [3, 4, 5], [6]], encoder, recipe)
    assert every.all()
    some, found, usable = run([[1, 2], [3, 4, broken], [6]], encoder, recipe)
    assert usable.tolist() == [True, False, True]
    np.testing.assert_array_equal(some, whole[usable])
    assert found.keys() == side_arrays.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], side_arrays[name][usable])


def test_without_alignment_and_when_none_is_left() -> None:
    recipe, encoder = SampleRecipe(SIDE, "squash", GRID), Striped()
    pixels = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    valid, motions = np.ones((2, 1, PATCHES), bool), np.zeros((2, 1, 2, 3), np.float32)
    embeddings, side_arrays, usable = embed_samples(encoder, pixels, valid, motions, recipe, batch_size=2)  # type: ignore[arg-type]
    assert (embeddings.shape, side_arrays.columns(), usable.tolist()) == ((0, PATCHES, DIM), {}, [False, False])
