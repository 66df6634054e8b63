"""What regions are named by: a bank of words, the blocks whose patches they are compared with, and their adapters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.naming.text_bank import TextBank, unit


@dataclass(frozen=True)
class Words:
    """Hold a text bank, or what tuning has put in its place (method.md §14, method.md §15)."""

    bank: TextBank
    taps: tuple[int, ...] = ()
    """Blocks of the image tower, from 1; empty for the last."""
    adapters: np.ndarray | None = None
    """float32 (taps, E, E): what patches of each tap are multiplied by; None for nothing."""

    def adapted(self, patches: np.ndarray) -> np.ndarray:
        """Adapt unit vectors float (taps, n, E) of patches: float64, of length 1."""
        vectors = np.asarray(patches, np.float64)
        return vectors if self.adapters is None else unit(vectors @ self.adapters)
