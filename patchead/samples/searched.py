"""Maps of samples by the full search, one image or a few at a time: what bound and refine leaves to whoever looks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from patchead.samples.finish import finish_samples
from patchead.samples.mask import ForegroundMask
from patchead.samples.side_arrays import SideArrays
from patchead.scoring.leave_one_out import score_group
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
        return finish_samples(
            self._searched(places),
            self.compared.grid,
            self.side_arrays.of(places),
            mask=self.mask,
            top_fraction=self.compared.aggregation.image_top_fraction,
        ).patch_scores

    def _searched(self, places: np.ndarray) -> np.ndarray:
        """Patch scores float32 (n, V · P); of most images of a group each pair is rather multiplied once for both."""
        n, compared = len(self.embeddings), self.compared
        if 2 * len(places) > n == len(compared.references):
            everyone = score_group(
                self.embeddings,
                compared.content,
                compared.part,
                aggregation=replace(compared.aggregation, window=None),
                device=compared.device,
                precision=compared.precision,
                memory_bytes=compared.memory_bytes,
                grid=compared.grid,
            )
            return everyone.patch_scores[places]
        found = search_images(places, self.n_references[places], compared, self.embeddings.__getitem__)
        return np.concatenate([scores for _, scores in found])
