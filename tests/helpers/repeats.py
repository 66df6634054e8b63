"""Distances of made-up groups in which some images share a region."""

from __future__ import annotations

import numpy as np


def strip(n: int, patches: int, shared: tuple[int, ...] = (), seed: int = 0, at: tuple[int, ...] = (0,)) -> np.ndarray:
    """float32 (n, n, patches), from a patch of image i to its nearest in image j; 0 for i = j.

    The patches ``at`` of the images ``shared`` are near each other and far from all others.
    """
    rng = np.random.default_rng(seed)
    out = (0.1 + 0.05 * rng.random((n, n, patches))).astype(np.float32)
    for i in shared:
        for p in at:
            out[i, :, p] = 0.4 + 0.05 * rng.random(n)
            out[i, list(shared), p] = 0.02 + 0.002 * rng.random(len(shared))
    out[np.arange(n), np.arange(n)] = 0
    return out


def shared_mark(n: int, p: int, d: int, shared: list[int], seed: int = 0) -> np.ndarray:
    """Unit vectors float16 (n, p, d): every place looks like itself, and ``shared`` have one mark at places 7 and 8."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.standard_normal((1, p, d)) + rng.standard_normal((n, p, d))
    z[np.ix_(shared, [7, 8])] = 4 * rng.standard_normal((1, 2, d)) + 0.1 * rng.standard_normal((len(shared), 2, d))
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
