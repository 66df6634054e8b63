"""Which patches can still change a result: what the search of method.md §10 asks before it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from patchead.scoring.aggregate import top_count


class Goal(Protocol):
    """Describe what is wanted of the B images of a search, or of some of them."""

    def __call__(self, values: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """Say what each patch is worth searching: float32 (B, P).

        ``values`` float32 (B, P) are patch scores where ``exact`` bool (B, P), else upper bounds; NaN without a
        reference. −inf where the patch cannot change the result any more; of the others the largest are searched
        first. All −inf: done.
        """

    def of(self, images: slice) -> Goal:
        """Give the goal of some of the images alone."""


@dataclass(frozen=True)
class TopPatches:
    """Want the exact image scores and the exact largest patch: the M largest patch scores of each image."""

    top_fraction: float

    def __call__(self, values: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """Say which bounds are above the M-th largest exact score of their image."""
        m = top_count(values.shape[1], self.top_fraction)
        known = np.where(exact, values, -np.inf)
        enough = np.partition(known, values.shape[1] - m, axis=1)[:, values.shape[1] - m, None]
        return np.where(~exact & (values > enough), values, -np.inf)  # NaN, without a reference, is never above

    def of(self, images: slice) -> TopPatches:
        """Give the same: it holds nothing of any image."""
        return self
