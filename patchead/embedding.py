"""From the views of samples to their embeddings, and what is kept beside them.

The nightly job and `patchead.local` share it; no Ray, no storage.
"""

from __future__ import annotations

import numpy as np

from patchead.encoders import Encoder
from patchead.numerics.beside import Beside
from patchead.numerics.samples import own_distances
from patchead.numerics.views import spread
from patchead.sampling import Sampling


def embed_samples(
    encoder: Encoder,
    pixels: np.ndarray,
    valid: np.ndarray,
    motions: np.ndarray,
    sampling: Sampling,
    *,
    batch_size: int,
) -> tuple[np.ndarray, Beside]:
    """Embeddings of n samples and what is kept beside them.

    Args:
        encoder: its attention is kept where it gives any.
        pixels: uint8 (M, S, S, 3), the views that exist of all samples, one sample after the other.
        valid: bool (n, V, P).
        motions: float32 (n, V, 2, 3).
        sampling: what the views are.
        batch_size: views per forward pass.

    Returns:
        float16 (n, V · P, D); in few-shot mode (n, P, D), as the warped prompts are used up here: their distances are
        in `Beside.own`.
    """
    embeddings, looks = _embedded(encoder, pixels, batch_size)
    if sampling.align is None:
        return embeddings, Beside(attention=looks)
    exists = np.any(valid, axis=2)
    starts = np.cumsum(exists.sum(axis=1)) - exists.sum(axis=1)
    aligned = np.any(exists[:, 1:], axis=1)
    samples = np.split(embeddings, starts[1:])
    if sampling.few_shot:
        own = np.stack(
            [own_distances(views, v, device=encoder.device) for views, v in zip(samples, valid, strict=True)]
        )
        return embeddings[starts], Beside(attention=None if looks is None else looks[starts], own=own, aligned=aligned)
    every = np.stack([spread(views, v) for views, v in zip(samples, valid, strict=True)])
    if looks is not None:
        parts = zip(np.split(looks, starts[1:]), valid, strict=True)
        looks = np.stack([spread(part[..., None], v)[..., 0] for part, v in parts])
    return every, Beside(attention=looks, valid=valid, motions=motions, aligned=aligned)


def _embedded(encoder: Encoder, pixels: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray | None]:
    batches = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
    if not encoder.attention:
        return np.concatenate([encoder.embed(batch) for batch in batches]), None
    parts = [encoder.embed_with_attention(batch) for batch in batches]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
