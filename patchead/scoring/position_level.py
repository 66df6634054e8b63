"""What a patch scores above the level of its place in the group (method.md §9.1)."""

from __future__ import annotations

import numpy as np

LEVEL = 0.75


def above_position_level(patch_scores: np.ndarray) -> np.ndarray:
    """Measure by what each patch score exceeds the 75 % quantile of its place over the group: (N, P) → float32 (N, P).

    0 where it does not. Places that score high in every image, as edges do, lose what they all have. It is for parts
    that lie alike. Images without a score (NaN) have no say and stay NaN.

    Examples:
        >>> above_position_level(np.array([[0.1, 0.5], [0.1, 0.5], [0.4, 0.5]], np.float32)).round(2).tolist()
        [[0.0, 0.0], [0.0, 0.0], [0.15, 0.0]]
    """
    known = np.isfinite(patch_scores).all(axis=1)
    if not known.any():
        return np.full_like(patch_scores, np.nan, dtype=np.float32)
    level = np.quantile(patch_scores[known], LEVEL, axis=0)
    return np.maximum(patch_scores - level, 0).astype(np.float32)
