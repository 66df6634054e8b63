"""From the views of samples to their embeddings, and what is kept beside them.

The nightly job and `patchead.local` share it; no Ray, no storage.
"""

from __future__ import annotations

import numpy as np

from patchead.batches import batches
from patchead.encoders import Encoder
from patchead.samples.finish import own_distances
from patchead.samples.recipe import SampleRecipe
from patchead.samples.side_arrays import SideArrays
from patchead.samples.views import over_all_views

NO_DIRECTION = (
    "the encoder gave a patch a vector that is zero, infinite or NaN, which has no direction. "
    "Look at the image, at encoder.dtype and at encoder.layers."
)


def embed_samples(
    encoder: Encoder,
    pixels: np.ndarray,
    valid: np.ndarray,
    motions: np.ndarray,
    recipe: SampleRecipe,
    *,
    batch_size: int,
) -> tuple[np.ndarray, SideArrays, np.ndarray]:
    """Embeddings of n samples and what is kept beside them, without the samples that cannot be compared.

    Args:
        encoder: its attention is kept where it gives any.
        pixels: uint8 (M, S, S, 3), the views that exist of all samples, one sample after the other.
        valid: bool (n, V, P).
        motions: float32 (n, V, 2, 3).
        recipe: what the views are.
        batch_size: views per forward pass.

    Returns:
        float16 (m, V · P, D); in few-shot mode (m, P, D), as the warped prompts are used up here: their distances are
        in `SideArrays.own`. What is kept beside them. bool (n,): which samples these m are: those of which no view has
        a vector that is zero, infinite or NaN.
    """
    embeddings, looks = _embedded(encoder, pixels, batch_size)
    exists = np.any(valid, axis=2)
    counts = exists.sum(axis=1)
    owner = np.repeat(np.arange(len(valid)), counts)
    usable = np.bincount(owner[~_comparable(embeddings)], minlength=len(valid)) == 0
    if not usable.all():
        kept = usable[owner]
        embeddings, looks = embeddings[kept], None if looks is None else looks[kept]
        valid, motions, exists, counts = valid[usable], motions[usable], exists[usable], counts[usable]
    if recipe.align is None or not usable.any():
        return embeddings, SideArrays(attention=looks), usable
    starts = np.cumsum(counts) - counts
    aligned = np.any(exists[:, 1:], axis=1)
    samples = np.split(embeddings, starts[1:])
    if recipe.few_shot:
        own = np.stack(
            [own_distances(views, v, device=encoder.device) for views, v in zip(samples, valid, strict=True)]
        )
        looks = None if looks is None else looks[starts]
        return embeddings[starts], SideArrays(attention=looks, own=own, aligned=aligned), usable
    every = np.stack([over_all_views(views, v) for views, v in zip(samples, valid, strict=True)])
    if looks is not None:
        parts = zip(np.split(looks, starts[1:]), valid, strict=True)
        looks = np.stack([over_all_views(part[..., None], v)[..., 0] for part, v in parts])
    return every, SideArrays(attention=looks, valid=valid, motions=motions, aligned=aligned), usable


def _comparable(embeddings: np.ndarray) -> np.ndarray:
    """bool (M,): images of float16 (M, P, D) of which no vector is zero, infinite or NaN."""
    # Without its sign a float16 is ordered like its bits: the largest is 0 for a zero vector, and at least infinity's.
    largest = np.bitwise_and(embeddings.view(np.uint16), 0x7FFF).max(axis=-1)
    return np.all((largest > 0) & (largest < 0x7C00), axis=-1)


def _embedded(encoder: Encoder, pixels: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray | None]:
    if not encoder.attention:
        return np.concatenate([encoder.embed(batch) for batch in batches(pixels, batch_size)]), None
    parts = [encoder.embed_with_attention(batch) for batch in batches(pixels, batch_size)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
