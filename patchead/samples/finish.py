"""From raw patch scores to a sample's scores: its own references, the mask, and its views put together (method.md §5).

A sample is an image as it was embedded: V views of P patches each, V = 1 without alignment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.samples.mask import ForegroundMask, mask_weights
from patchead.samples.side_arrays import SideArrays
from patchead.samples.views import merge_views
from patchead.scoring.aggregate import image_scores
from patchead.scoring.position_level import above_position_level
from patchead.scoring.precision import prepare
from patchead.scoring.similarity import one_way

_BUDGET = 64 << 20


@dataclass(frozen=True)
class Finished:
    """Hold the scores of N samples: ``patch_scores`` float32 (N, h, w), ``image_scores`` float64 (N,), in [0, 1]."""

    patch_scores: np.ndarray
    image_scores: np.ndarray


def finish_samples(
    raw: np.ndarray,
    grid: tuple[int, int],
    side_arrays: SideArrays,
    *,
    mask: ForegroundMask | None,
    top_fraction: float,
    position_level: bool = False,
) -> Finished:
    """Make patch and image scores of the patch scores (N, V · P) that matching gave; NaN rows stay NaN (method.md §5).

    Few-shot: the nearest of the common prompts and of those warped onto the query. Mask: weights after matching.
    Batch alignment: every view's map is brought back into the original frame and averaged, and so are the views'
    image scores, of their valid patches. Position level: of a whole group's samples, after the mask (§9.1).

    Raises:
        ValueError: a mask is asked for and there is no attention; or the position level of moved views, whose places
            lie elsewhere in each photo.
    """
    if side_arrays.own is not None:
        raw = np.minimum(raw, side_arrays.own)
    if mask is not None:
        if side_arrays.attention is None:
            raise ValueError("a mask needs the attention of the samples")
        raw = raw * mask_weights(side_arrays.attention, mask)
    if side_arrays.valid is None or side_arrays.motions is None:
        raw = above_position_level(raw) if position_level else raw
        return Finished(raw.reshape(-1, *grid), image_scores(raw, top_fraction))
    if position_level:
        raise ValueError("views that were moved have no position level")
    views = raw.reshape(len(raw), -1, *grid)
    patches, images = np.empty((len(raw), *grid), np.float32), np.empty(len(raw))
    for i, (scores, valid, motions) in enumerate(zip(views, side_arrays.valid, side_arrays.motions, strict=True)):
        patches[i] = merge_views(scores, valid.reshape(-1, *grid), motions)
        flat = scores.reshape(len(valid), -1)
        images[i] = np.mean(
            [image_scores(s[None, v], top_fraction)[0] for s, v in zip(flat, valid, strict=True) if v.any()]
        )
    return Finished(patches, images)


def own_distances(embeddings: np.ndarray, valid: np.ndarray, *, device: str = "cpu") -> np.ndarray:
    """Measure how far the nearest valid patch of the prompts warped onto a query is: float32 (P,), one per query patch.

    Args:
        embeddings: float16 (M, P, D), the query first, then the views that exist.
        valid: bool (V, P), the query first.
        device: torch device.

    Returns:
        Infinity everywhere when no prompt could be warped.
    """
    exists = valid.any(axis=1)
    patches = embeddings[1:][valid[exists][1:]]
    if not len(patches):
        return np.full(embeddings.shape[1], np.inf, np.float32)
    query, references = (prepare(e, device=device) for e in (embeddings[:1], patches[None]))
    return one_way(query, references, budget_bytes=_BUDGET)[0, 0].cpu().numpy()
