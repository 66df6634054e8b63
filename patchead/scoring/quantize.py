"""Unit vectors as int8: one fixed rotation, one fixed scale, so integer dot products of any two blocks compare.

A rotation leaves every dot product as it is and distributes channels that stick out over all dimensions: each entry
of a rotated unit vector is then close to normal with standard deviation 1 / sqrt(D), whatever the encoder. So the scale
needs no look at the data, and the largest integer dot product is the largest cosine (method.md §9.3).
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt

import numpy as np
import torch
from torch import Tensor

CLIP = 4.5
"""Standard deviations at which entries are cut off: one normal entry in 150,000. Smaller steps, or fewer cuts: at 3
the cuts decide the error of a score, from 3.5 to 5 neither does (`jobs/benchmark.py fidelity`)."""
LEVELS = 127
_SEED = 20251109


def cosine_step(d: int) -> float:
    """Give the cosine that one unit of an integer dot product stands for, at D dimensions."""
    return (CLIP / (LEVELS * sqrt(d))) ** 2


def quantize(vectors: Tensor) -> Tensor:
    """Rotate unit vectors float32 (..., D) and round them to int8; their dot products are in units of `cosine_step`.

    The error of a cosine has a standard deviation of about 0.0145 / sqrt(D).
    """
    d = vectors.shape[-1]
    rotated = vectors @ rotation(d, vectors.device)
    rotated.mul_(LEVELS * sqrt(d) / CLIP)
    return rotated.round_().clamp_(-LEVELS, LEVELS).to(torch.int8)


@lru_cache(maxsize=8)
def rotation(d: int, device: torch.device) -> Tensor:
    """Draw the orthogonal float32 (D, D) that every process uses, from a fixed seed, uniform over rotations."""
    q, r = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((d, d)))
    return torch.from_numpy((q * np.sign(np.diagonal(r))).astype(np.float32)).to(device)
