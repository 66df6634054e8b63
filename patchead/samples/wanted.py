"""What a search must find exactly so that finished samples are exact: bounds seen through mask, prompts and views."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from patchead.samples.mask import ForegroundMask, mask_weights
from patchead.samples.side_arrays import SideArrays
from patchead.samples.views import merge_views, patches_behind
from patchead.search.goals import TopPatches


@dataclass(frozen=True)
class FinishedImages:
    """Want the image scores and the largest patches that `finish_samples` makes (method.md §10).

    Every step of it grows with each patch score: weights are not negative, views are averaged with fixed weights.
    """

    grid: tuple[int, int]
    side_arrays: SideArrays
    mask: ForegroundMask | None
    top_fraction: float

    def of(self, images: slice) -> FinishedImages:
        """Give the goal of some of the images alone."""
        return replace(self, side_arrays=self.side_arrays.of(images))

    def __call__(self, values: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """Say what each patch is worth searching; see `goals.Goal`."""
        side = self.side_arrays
        if side.own is not None:
            values = np.minimum(values, side.own)
        if self.mask is not None and side.attention is not None:
            values = values * mask_weights(side.attention, self.mask)
        if side.valid is None or side.motions is None:
            return TopPatches(self.top_fraction)(values, exact)
        wanted = np.full(values.shape, -np.inf, np.float32)
        for i, valid in enumerate(side.valid):
            found, worth, known = (of[i].reshape(len(valid), -1) for of in (wanted, values, exact))
            self._of_views(found, valid, worth, known)
            if not np.isfinite(found).any():
                self._of_map(found, valid, side.motions[i], worth, known)
        return wanted

    def _of_views(self, wanted: np.ndarray, valid: np.ndarray, values: np.ndarray, exact: np.ndarray) -> None:
        """What the image score of each view needs, arrays (V, P)."""
        for view, there in enumerate(valid):
            if there.any():
                found = TopPatches(self.top_fraction)(values[view][None, there], exact[view][None, there])
                wanted[view, there] = found[0]

    def _of_map(
        self, wanted: np.ndarray, valid: np.ndarray, motions: np.ndarray, values: np.ndarray, exact: np.ndarray
    ) -> None:
        """What the largest value of the merged map needs: the patches behind the places that may be it."""
        if not np.isfinite(values).all():  # no reference
            return
        shape = (len(valid), *self.grid)
        upper = merge_views(values.reshape(shape), valid.reshape(shape), motions).ravel()
        for place in np.argsort(-upper, kind="stable"):
            behind = patches_behind(int(place), valid.reshape(shape), motions)
            missing = [at for at in behind if not exact[at]]
            for at in missing:
                wanted[at] = values[at]
            if not missing or np.isfinite(wanted).sum() >= values.shape[1] // 100:
                return  # the largest is exact, or there is enough to do
