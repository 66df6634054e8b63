"""Images for the encoder tests."""

from __future__ import annotations

import numpy as np


def photos(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Random uint8 images (count, side, side, 3) with structure at several scales."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (count, 4, 4, 3)).repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)
    noise = random.normal(0, 30, (count, side, side, 3))
    return np.clip(coarse[:, :side, :side] + noise, 0, 255).astype(np.uint8)
