"""The burn-out test: which patches look alike in a few images and in no other (method.md §9.2; arXiv 2510.10456).

The distances of a normal patch to its nearest images grow evenly. A defect that i other images share has i near ones,
and then a jump: its i-th neighbour is the last that hides it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from patchead.scoring.memory_budget import PATCHES_KEPT, neighbours_tested
from patchead.scoring.precision import allocate
from patchead.threads import over_threads

LEVEL = 1e-3
"""p-value, corrected for the neighbours tested, below which a patch is evidence."""
_SMALLEST = 1e-6  # of a relative distance: what is below is rounding
_NOBODY = np.iinfo(np.int64).max  # the key of an image that is no reference
_PLACE = (1 << 32) - 1  # the bits of a key that hold the image
_FEWEST = 3  # images, for a jump behind two of them


@dataclass(frozen=True)
class Evidence:
    """Hold, for each of B images, up to T patches that jump, those with the highest distance behind the jump first."""

    patch: np.ndarray
    """int32 (B, T), -1 where there is none."""
    p_value: np.ndarray
    """float64 (B, T), corrected for the neighbours tested; 1 where there is none."""
    behind: np.ndarray
    """float32 (B, T): mean distance to the nearest images behind the jump; 0 where there is none."""
    images: np.ndarray
    """int32 (B, T, m): positions in the group of the images before the jump, the nearest first; -1 behind them."""

    @classmethod
    def joined(cls, parts: list[Evidence]) -> Evidence:
        """Put the blocks of a group together, in their order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


class BurnOut:
    """Test each patch's nearest images for a jump, while references stream past in any order and any portions.

    Distances are compared relative to the mean over the patches of the two images: images that are alike all over, as
    photos of one lot are, are no evidence. At most 2 (m + 1) images per patch are held, 8 bytes each.
    """

    def __init__(self, rows: int, n_patches: int, images: int, references: int, k: int, device: str) -> None:
        """
        Args:
            rows: B, the images that are tested.
            n_patches: P.
            images: N of the group.
            references: the most references that one of the B images has.
            k: K of the patch score: as many distances behind the jump are averaged, if so many are held.
            device: where the distances are.
        """
        self._tested, self._k = neighbours_tested(references), k
        self._keys = allocate((rows, n_patches, 2 * (self._tested + 1)), torch.int64, device)
        self._fill = 0
        self._mean = np.zeros((rows, images), np.float32)

    def add(self, distances: Tensor, allowed: np.ndarray, columns: np.ndarray) -> None:
        """Take distances float32 (B, n, P) to the images at ``columns`` (n,) of the group; see `NearestMean.add`."""
        start, capacity = 0, self._keys.shape[2]
        while start < len(columns):
            if self._fill == capacity:
                self._sort()
                self._fill = self._tested + 1
            stop = min(start + capacity - self._fill, len(columns))
            self._append(distances[:, start:stop], allowed[:, start:stop], columns[start:stop])
            start = stop

    def result(self) -> Evidence:
        """Give the evidence of what was added."""
        self._sort()
        held = self._keys[:, :, : min(self._fill, self._tested + 1)]
        parts = [self._of_image(keys.cpu().numpy(), mean) for keys, mean in zip(held, self._mean, strict=True)]
        return Evidence(*(np.stack(values) for values in zip(*parts, strict=True)))

    def _append(self, distances: Tensor, allowed: np.ndarray, columns: np.ndarray) -> None:
        mean = distances.mean(dim=2, dtype=torch.float64).clamp_(min=_SMALLEST).float()
        # Positive floats have the order of their bits: one integer holds a distance and, below it, the image's place.
        relative = (distances / mean[:, :, None]).clamp_(min=_SMALLEST)
        keys = relative.view(torch.int32).to(torch.int64).bitwise_left_shift_(32)
        keys.bitwise_or_(torch.from_numpy(np.array(columns, np.int64)).to(keys.device)[None, :, None])
        if not allowed.all():
            keys.masked_fill_(torch.from_numpy(~allowed).to(keys.device)[:, :, None], _NOBODY)
        self._keys[:, :, self._fill : self._fill + len(columns)] = keys.transpose(1, 2)
        self._fill += len(columns)
        self._mean[:, columns] = mean.cpu().numpy()

    def _sort(self) -> None:
        keep = min(self._tested + 1, self._fill)

        def order(row: Tensor) -> None:
            if row.device.type == "cpu":
                row.numpy().sort(axis=-1)
            else:
                row[:, :keep] = row.topk(keep, dim=1, largest=False).values

        over_threads(order, list(self._keys[:, :, : self._fill]), self._keys.device)

    def _of_image(self, keys: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, ...]:
        """Fields of `Evidence` of one image, from its keys int64 (P, at most m + 1), ascending, and ``mean`` (N,)."""
        keys = keys[:, : int((keys[0] < _NOBODY).sum())]  # the same images for every patch
        images = (keys & _PLACE).astype(np.int32)
        relative = (keys >> 32).astype(np.int32).view(np.float32).astype(np.float64)
        out = (
            np.full(PATCHES_KEPT, -1, np.int32),
            np.ones(PATCHES_KEPT),
            np.zeros(PATCHES_KEPT, np.float32),
            np.full((PATCHES_KEPT, self._tested), -1, np.int32),
        )
        if keys.shape[1] < _FEWEST:
            return out
        before, p_values = jumps(relative)
        behind = mean_behind(relative * mean[images], before, self._k)
        found = np.flatnonzero((p_values < LEVEL) & (before > 1))
        found = found[np.lexsort((found, -behind[found]))][:PATCHES_KEPT]
        for place, patch in enumerate(found.tolist()):
            out[0][place], out[1][place], out[2][place] = patch, p_values[patch], behind[patch]
            out[3][place, : before[patch]] = images[patch, : before[patch]]
        return out


def jumps(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest jump in each patch's distances to its nearest images (method.md §9.2).

    i · ln(d[i + 1] / d[i]) of normal patches is about exponential; its rate is the median over the patches of m over
    the sum of these.

    Args:
        distances: float64 (P, m + 1), positive and ascending.

    Returns:
        int64 (P,), images before the jump, 1 to m; float64 (P,), its p-value, corrected for the m places it could be.
    """
    tested = distances.shape[1] - 1
    steps = np.diff(np.log(distances), axis=1) * np.arange(1, tested + 1)
    rate = np.median(tested / np.maximum(steps.sum(axis=1), _SMALLEST))
    return steps.argmax(axis=1) + 1, np.minimum(1.0, tested * np.exp(-rate * steps.max(axis=1)))


def mean_behind(distances: np.ndarray, before: np.ndarray, k: int) -> np.ndarray:
    """Average the first ``k`` distances behind each patch's jump, or as many as there are: (P, n) → float32 (P,)."""
    place = np.arange(distances.shape[1])
    counted = (place >= before[:, None]) & (place < before[:, None] + k)
    return ((distances * counted).sum(axis=1) / counted.sum(axis=1)).astype(np.float32)
