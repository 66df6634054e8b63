"""Small groups of embeddings that look like a product: a common pattern, noise, and a few odd patches."""

from __future__ import annotations

import numpy as np


def group(n: int, p: int, d: int = 16, seed: int = 0) -> np.ndarray:
    """Unit vectors float16 (n, p, d)."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((1, p, d)) + 0.5 * rng.standard_normal((n, p, d))
    z[rng.random((n, p)) < 0.05] *= -1
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
