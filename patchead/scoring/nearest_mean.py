"""The mean over the K nearest (or farthest) references of every patch, while references stream past."""

from __future__ import annotations

from math import inf

import numpy as np
import torch
from torch import Tensor

from patchead.errors import SettingsError, bad_argument
from patchead.scoring.aggregate import AGGREGATES
from patchead.scoring.precision import allocate
from patchead.threads import over_threads


class NearestMean:
    """Average the K nearest (or farthest) references of each patch, fed in any order and any portions.

    At most ``capacity`` candidates per patch are held: B · P · capacity · 4 bytes. The result does not depend on
    how the distances were cut up (method.md §3; PatchEAD §3.1, eq. 3).
    """

    def __init__(self, k: np.ndarray, n_patches: int, aggregate: str, device: str, capacity: int) -> None:
        """
        Args:
            k: int (B,), K of each row.
            n_patches: P.
            aggregate: ``nearest`` or ``farthest``.
            device: where the distances are.
            capacity: at least max(k).

        Raises:
            SettingsError: unknown aggregate.
            ValueError: a k below 1, or a capacity below max(k).
        """
        if aggregate not in AGGREGATES:
            raise SettingsError(bad_argument("aggregate", aggregate, f"one of {', '.join(AGGREGATES)}"))
        self._k = np.asarray(k, np.int64)
        self._keep = int(self._k.max(initial=1))
        if self._k.min(initial=1) < 1 or capacity < self._keep:
            raise ValueError(f"1 <= k <= capacity must hold; got k {k!r}, capacity {capacity}")
        # Candidates are kept with the sign that makes the wanted ones the smallest; infinity stands for "no reference".
        # One place more than max(k), so that there is always room for the next candidate.
        self._sign = 1.0 if aggregate == "nearest" else -1.0
        shape = (len(self._k), n_patches, max(capacity, self._keep + 1))
        self._held = allocate(shape, torch.float32, device)
        self._fill = 0
        self.seen = np.zeros(len(self._k), np.int64)
        """References of each row so far."""

    def add(self, distances: Tensor, allowed: np.ndarray) -> None:
        """Take distances (B, n, P) to n images; ``allowed`` bool (B, n) says which are references of which row."""
        self.seen += allowed.sum(axis=1)
        start, capacity = 0, self._held.shape[2]
        while start < distances.shape[1]:
            if self._fill == capacity:
                self._sort()
                self._fill = self._keep
            stop = min(start + capacity - self._fill, distances.shape[1])
            self._append(distances[:, start:stop], allowed[:, start:stop])
            start = stop

    def result(self) -> Tensor:
        """Give the means, float32 (B, P); NaN in rows that had no reference at all.

        Raises:
            ValueError: a row had references, but fewer than its K.
        """
        if (short := np.flatnonzero((self.seen > 0) & (self.seen < self._k))).size:
            row = short[0]
            raise ValueError(f"row {row} needs {self._k[row]} references and was given {self.seen[row]}")
        self._sort()
        out = torch.full(self._held.shape[:2], torch.nan, dtype=torch.float32, device=self._held.device)
        for row in np.flatnonzero(self.seen).tolist():
            out[row] = self._held[row, :, : self._k[row]].mean(dim=1) * self._sign
        return out

    def _append(self, distances: Tensor, allowed: np.ndarray) -> None:
        target = self._held[:, :, self._fill : self._fill + distances.shape[1]]
        torch.mul(distances.transpose(1, 2), self._sign, out=target)
        if not allowed.all():
            banned = torch.from_numpy(~allowed).to(target.device)
            target.masked_fill_(banned[:, None, :], inf)
        self._fill += distances.shape[1]

    def _sort(self) -> None:
        """Order the candidates of each patch, best first, at least as far as the largest K."""
        keep = min(self._keep, self._fill)

        def order(row: Tensor) -> None:
            if row.device.type == "cpu":
                row.numpy().sort(axis=-1)  # SIMD and in place: about five times as fast as torch.topk
            else:
                row[:, :keep] = row.topk(keep, dim=1, largest=False).values

        over_threads(order, list(self._held[:, :, : self._fill]), self._held.device)
