"""The nearest patch of every image as a few principal components see it: a bound for any group (method.md §10).

Few components tell well which patch of an image is the nearest, and badly how near it is. So they choose, and one
exact multiplication with the chosen patch measures: an upper bound of the distance to that image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.search.group_vectors import GroupVectors
from patchead.threads import core_map, on_one_core, over_threads

COMPONENTS = 32
_SAMPLE = 4096  # patches that the components are made from
_TURNS = 3  # of the subspace iteration
ROWS = 256
"""Patches that one thread looks for at a time."""
GATHERED = 1 << 18
"""Values that it gathers at a time for the exact multiplications."""


def share_of_components(dim: int) -> float:
    """Give what a dot product in components multiplies, of one of whole vectors with ``dim`` values."""
    return min(COMPONENTS, dim) / dim


class Projection:
    """Hold all references in a few components, and find in them the nearest patch of each.

    The last component carries what the centring takes away, so the order of the estimates is that of the cosines.
    """

    def __init__(self, vectors: GroupVectors, components: int, images: int) -> None:
        """
        Args:
            vectors: of the group; their references are looked through.
            components: d, at least 2.
            images: references that are prepared at a time.
        """
        self._vectors = vectors
        self._mean, self._axes = on_one_core(lambda: _principal(_sample(vectors), components - 1), vectors.device)
        count, p = len(vectors.references), vectors.patches
        self._low = torch.empty(count, p, self._axes.shape[1] + 1, device=self._axes.device)
        for cut, block in vectors.reference_blocks(images):

            def project(number: int, start: int = cut.start, block: Tensor = block) -> None:
                self._low[start + number] = self.of_reference(block[number])

            over_threads(project, range(len(block)), block.device)

    def of_reference(self, image: Tensor) -> Tensor:
        """Project patches (P, D) that are looked for: float32 (P, d)."""
        exact = image.float()
        return torch.cat([(exact - self._mean) @ self._axes, (exact @ self._mean)[:, None]], dim=1)

    def of_query(self, patches: Tensor) -> Tensor:
        """Project patches (R, D) that look: float32 (R, d); dot products with the others are ordered as cosines."""
        exact = patches.float()
        return torch.cat([(exact - self._mean) @ self._axes, exact.new_ones(len(exact), 1)], dim=1)

    def lower_cosines(self, queries: Tensor, allowed: np.ndarray, most: int) -> Tensor:
        """Measure the cosine with the chosen patch of each reference: float32 (R, n), −inf where it is not measured.

        Args:
            queries: (R, D), prepared.
            allowed: bool (R, n), which images are references of which patch.
            most: references per query whose chosen patch is multiplied, those of the largest estimates.

        Returns:
            Never above the largest cosine, in units of `GroupVectors.step` and up to rounding.
        """
        out = torch.full((len(queries), len(self._vectors.references)), -torch.inf, device=queries.device)
        cuts = slices(len(queries), ROWS)
        with core_map(queries.device, len(cuts)) as run:
            for _ in run(lambda cut: self._measure(queries[cut], allowed[cut], most, out[cut]), cuts):
                pass
        return out

    def _measure(self, queries: Tensor, allowed: np.ndarray, most: int, out: Tensor) -> None:
        place, estimate = self._nearest(queries)
        estimate[~allowed] = -np.inf
        count = min(most, estimate.shape[1])
        chosen = np.argpartition(-estimate, count - 1, axis=1)[:, :count]
        places = np.take_along_axis(place, chosen, axis=1)
        step = max(1, GATHERED // (count * queries.shape[1]))
        for rows in slices(len(queries), step):
            found = self._vectors.of_references(chosen[rows].ravel(), places[rows].ravel()).float()
            x = queries[rows].float()[:, :, None]
            exact = torch.bmm(found.view(len(x), count, -1), x)[:, :, 0]
            out[rows].scatter_(1, torch.from_numpy(chosen[rows]).to(out.device), exact)

    def _nearest(self, queries: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of each reference, the patch of the largest estimate and that estimate: (R, n) each."""
        low = self.of_query(queries)
        n = len(self._low)
        place, best = np.empty((len(low), n), np.int64), np.empty((len(low), n), np.float32)
        scratch = torch.empty(len(low), self._low.shape[1], device=low.device)
        for number, image in enumerate(self._low):
            torch.mm(low, image.t(), out=scratch)
            if scratch.device.type == "cpu":  # numpy's is SIMD: ten times as fast as torch's
                place[:, number] = scratch.numpy().argmax(axis=1)
                best[:, number] = scratch.numpy()[np.arange(len(low)), place[:, number]]
            else:
                values, places = scratch.max(dim=1)
                place[:, number], best[:, number] = places.cpu().numpy(), values.cpu().numpy()
        return place, best


def _sample(vectors: GroupVectors) -> Tensor:
    """Some patches of the references, float32 (n, D), drawn alike each time."""
    total = len(vectors.references) * vectors.patches
    drawn = np.random.default_rng(0).integers(total, size=min(total, _SAMPLE))
    image, patch = np.divmod(np.sort(drawn), vectors.patches)
    return vectors.single(vectors.references[image], patch).float()


def _principal(sample: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean (D,) and ``count`` principal directions (D, count) of patches (n, D), by subspace iteration."""
    mean = sample.mean(dim=0)
    centred, count = sample - mean, min(count, sample.shape[1])
    start = np.random.default_rng(1).standard_normal((sample.shape[1], count)).astype(np.float32)
    axes = torch.from_numpy(start).to(sample.device)
    for _ in range(_TURNS):
        axes = torch.linalg.qr(centred.t() @ (centred @ axes)).Q
    return mean, axes
