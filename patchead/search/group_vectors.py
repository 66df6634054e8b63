"""The stored embeddings of a group, taken by images, by places on the grid or by single patches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring import quantize
from patchead.scoring.memory_budget import STORED_BYTES
from patchead.scoring.precision import dtype_of, prepare

Blocks = Sequence[tuple[np.ndarray, np.ndarray]]
"""Positions in the group, int64 (n,), and the embeddings float16 (n, P, D) of those images; no image twice."""


class GroupVectors:
    """Prepare unit vectors of one arithmetic from blocks of stored embeddings, a part of them at a time.

    With ``hold`` all references are prepared once and kept, N · P · D values; without, each use prepares anew.
    """

    def __init__(self, blocks: Blocks, references: np.ndarray, *, device: str, precision: str, hold: bool) -> None:
        """
        Args:
            blocks: the group's images, of which some may be no references.
            references: int64 (R,), positions in the group, ascending.
            device, precision: of the prepared vectors; see `precision.prepare`.
            hold: keep the prepared references.

        Raises:
            ValueError: a reference is in no block.
        """
        self._blocks, self.hold = blocks, hold
        self._options: dict[str, str] = {"device": device, "precision": precision}
        self.references = references
        last = max((int(columns.max(initial=0)) for columns, _ in blocks), default=0)
        self._block, self._row = np.full(last + 1, -1), np.zeros(last + 1, np.int64)
        for number, (columns, _) in enumerate(blocks):
            self._block[columns], self._row[columns] = number, np.arange(len(columns))
        missing = references[(references > last) | (self._block[np.minimum(references, last)] < 0)]
        if missing.size:
            raise ValueError(f"image {missing[0]} is in none of the blocks")
        self.patches, self.dim = blocks[0][1].shape[1:]
        self.device = torch.device(device)
        self.dtype = dtype_of(precision)
        self.step = quantize.cosine_step(self.dim) if precision == "int8" else 1.0
        """The cosine that 1 in a dot product of these vectors stands for."""

    def images(self, positions: np.ndarray, patches: slice | None = None) -> Tensor:
        """Prepare the images at ``positions`` (n,), or a run of their patches: (n, P, D)."""
        cut = patches or slice(0, self.patches)
        if self.hold and patches is not None and positions is self.references:
            return self._held[:, cut]
        stored = self._gathered(positions, cut)
        return prepare(stored, **self._options, positions=positions, first_patch=cut.start)

    def some_references(self, cut: slice, patches: slice) -> Tensor:
        """Give a run of patches of some references, counted by their place among the references: (n, P, D)."""
        return self._held[cut, patches] if self.hold else self.images(self.references[cut], patches)

    @property
    def stored_and_prepared(self) -> int:
        """Count the bytes of a value while it is prepared, and a copy of the stored one with it."""
        return self.dtype.itemsize + STORED_BYTES

    def single(self, positions: np.ndarray, patches: np.ndarray) -> Tensor:
        """Prepare patches ``patches`` (R,) of the images at ``positions`` (R,): (R, D)."""
        stored = np.empty((len(positions), 1, self.dim), self._blocks[0][1].dtype)
        block = self._block[positions]
        for number in np.unique(block):
            here = np.flatnonzero(block == number)
            stored[here, 0] = self._blocks[number][1][self._row[positions[here]], patches[here]]
        return prepare(stored, **self._options, positions=positions, first_patch=patches)[:, 0]

    def of_references(self, number: np.ndarray, patches: np.ndarray) -> Tensor:
        """Give patches of references, counted by their place among the references: (R, D)."""
        if not self.hold:
            return self.single(self.references[number], patches)
        at = torch.from_numpy(number * self.patches + patches).to(self._held.device)
        return self._held.view(-1, self.dim)[at]

    def reference_blocks(self, images: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield all references in blocks of at most ``images``: places among the references, vectors (n, P, D)."""
        if self.hold:
            yield slice(0, len(self.references)), self._held
            return
        for cut in slices(len(self.references), images):
            yield cut, self.images(self.references[cut])

    @cached_property
    def _held(self) -> Tensor:
        return self.images(self.references)

    def _gathered(self, positions: np.ndarray, cut: slice) -> np.ndarray:
        block = self._block[positions]
        if len(positions) and (block == block[0]).all():
            rows = self._row[positions]
            array = self._blocks[block[0]][1]
            if len(rows) == rows[-1] - rows[0] + 1 and (np.diff(rows) == 1).all():
                return array[rows[0] : rows[-1] + 1, cut]  # a view: nothing is copied
            return array[rows, cut]
        out = np.empty((len(positions), cut.stop - cut.start, self.dim), self._blocks[0][1].dtype)
        for number in np.unique(block):
            here = np.flatnonzero(block == number)
            out[here] = self._blocks[number][1][self._row[positions[here]], cut]
        return out
