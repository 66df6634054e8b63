"""Maps of samples by the full search, one image or a few at a time: what bound and refine leaves to whoever looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.samples.finish import finish_samples
from patchead.samples.mask import ForegroundMask
from patchead.samples.side_arrays import SideArrays
from patchead.scoring.rescore import Compared, search_images


@dataclass(frozen=True)
class MapSearch:
    """Hold the samples of a group in memory, and search all patches of the images that are asked for.

    ``embeddings`` float16 (N, V · P, D) of the group, of which the first are scored; ``n_references`` int (B,) and
    ``side_arrays`` of these.
    """

    embeddings: np.ndarray
    n_references: np.ndarray
    compared: Compared
    side_arrays: SideArrays
    mask: ForegroundMask | None

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Make the patch scores of the images at ``places``, int64 (n,): float32 (n, h, w), no bound among them."""
        found = search_images(places, self.n_references[places], self.compared, self.embeddings.__getitem__)
        return finish_samples(
            np.concatenate([scores for _, scores in found]),
            self.compared.grid,
            self.side_arrays.of(places),
            mask=self.mask,
            top_fraction=self.compared.aggregation.image_top_fraction,
        ).patch_scores
