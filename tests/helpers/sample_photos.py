"""Images for the encoder tests, and real ones."""

from __future__ import annotations

import numpy as np
from demo_archive import elpv_cells, elpv_folder
from PIL import Image


def photos(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Random uint8 images (count, side, side, 3) with structure at several scales."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (count, 4, 4, 3)).repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)
    noise = random.normal(0, 30, (count, side, side, 3))
    return np.clip(coarse[:, :side, :side] + noise, 0, 255).astype(np.uint8)


def real_photos(count: int) -> list[np.ndarray]:
    """Real photos of good solar cells, uint8 (300, 300, 3), from all over the data set."""
    names = elpv_cells("mono", 0.0)
    chosen = [names[len(names) * number // count] for number in range(count)]
    return [np.asarray(Image.open(elpv_folder() / name).convert("RGB")) for name in chosen]
