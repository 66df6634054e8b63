"""Labelled crops as a frozen CLIP sees them: what is trained on is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from patchead.batches import stream_batches
from patchead.encoders.clip_towers import ClipTowers
from patchead.errors import SettingsError, bad_argument

LEAST_COVERED = 0.1
"""Share of a patch that a defect covers, at least, for the patch to be of its type: a scratch is thin."""
_AT_ONCE = 32


class LabelledCrop(NamedTuple):
    """Hold one crop: ``image`` uint8 (S, S, 3), ``mask`` bool (S, S), and its type, None where it is good."""

    image: np.ndarray
    mask: np.ndarray
    defect_type: str | None


@dataclass(frozen=True)
class Examples:
    """Hold n labelled crops in the space of words."""

    types: tuple[str, ...]
    whole: np.ndarray
    """float32 (n, E)."""
    patches: np.ndarray
    """float16 (n, taps, P, E)."""
    labels: np.ndarray
    """int64 (n, P): 0 where normal, else the place of the type in ``types`` + 1."""
    of_type: np.ndarray
    """int64 (n,): place of the image's type + 1; 0 where it is good."""

    def of(self, chosen: np.ndarray, types: Sequence[str]) -> Examples:
        """Take some crops, labelled by their places in ``types``; none may be of another type."""
        places = np.zeros(len(self.types) + 1, np.int64)
        for number, name in enumerate(types, start=1):
            places[self.types.index(name) + 1] = number
        cut = self.whole[chosen], self.patches[chosen], places[self.labels[chosen]], places[self.of_type[chosen]]
        return Examples(tuple(types), *cut)


def embed_examples(towers: ClipTowers, crops: Iterable[LabelledCrop], types: Sequence[str]) -> Examples:
    """Encode labelled crops by a frozen CLIP; memory is that of what it gives, not of the pictures.

    Raises:
        SettingsError: there is no crop.
    """
    whole, patches, labels, of_type = [], [], [], []
    names = tuple(sorted(types))
    for some in stream_batches(crops, _AT_ONCE):
        local, own = towers.patches_and_whole(np.stack([crop.image for crop in some]))
        whole.append(own)
        patches.append(local.astype(np.float16))
        for crop in some:
            number = 0 if crop.defect_type is None else names.index(crop.defect_type) + 1
            of_type.append(number)
            labels.append(number * (covered(crop.mask, towers.grid) >= LEAST_COVERED).astype(np.int64))
    if not of_type:
        raise SettingsError(bad_argument("crops", 0, "at least one labelled crop"))
    return Examples(names, np.concatenate(whole), np.concatenate(patches), np.stack(labels), np.array(of_type))


def covered(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Compute the share of each patch that a mask bool (S, S) covers: float64 (h · w,)."""
    rows, columns = (np.arange(side + 1) * mask.shape[axis] // side for axis, side in enumerate(grid))
    sums = np.pad(mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))[rows][:, columns]
    inside = sums[1:, 1:] - sums[:-1, 1:] - sums[1:, :-1] + sums[:-1, :-1]
    return (inside / np.outer(np.diff(rows), np.diff(columns))).reshape(-1)
