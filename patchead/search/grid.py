"""Where the patches of a sample lie, and which of them are near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Describe where the P = V · h · w patches of a sample lie: V views, each of h rows and w columns."""

    h: int
    w: int
    views: int = 1

    @classmethod
    def of(cls, shape: tuple[int, int], patches: int) -> Grid:
        """Take the grid of one view; the views are what the patches of a sample hold of them.

        Raises:
            ValueError: the patches are no whole number of views.
        """
        h, w = shape
        if patches % (h * w):
            raise ValueError(f"{patches} patches are no whole number of grids of {h} x {w}")
        return cls(h, w, patches // (h * w))

    def near(self, place: int, radius: int) -> list[int]:
        """List the places of the same view within Chebyshev distance ``radius`` of ``place``, itself included."""
        view, (y, x) = place // (self.h * self.w), divmod(place % (self.h * self.w), self.w)
        rows = range(max(0, y - radius), min(self.h, y + radius + 1))
        columns = range(max(0, x - radius), min(self.w, x + radius + 1))
        return [(view * self.h + row) * self.w + column for row in rows for column in columns]

    def opposite(self, place: int) -> int:
        """Give the place of the same view that is half its height and half its width away, around its edges."""
        view, (y, x) = place // (self.h * self.w), divmod(place % (self.h * self.w), self.w)
        return (view * self.h + (y + self.h // 2) % self.h) * self.w + (x + self.w // 2) % self.w

    def offsets(self, of: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Measure Chebyshev distances between places, int (...,); between two views as if they lay on each other."""
        (y, x), (v, u) = (divmod(place % (self.h * self.w), self.w) for place in (of, to))
        return np.maximum(abs(y - v), abs(x - u))
