"""Distance of every patch from the subspace in which its group varies: a second look, linear in the group's size.

It asks no image for its neighbours, so a defect that many images share does not hide itself (method.md §9.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring.precision import prepare

STRIDE = 5
"""Every how manieth patch the directions are made from."""
VARIANCE = 0.95
"""Share of the patches' variance that the directions hold."""
_VALUES = 1 << 22  # of the vectors that are in hand at a time, in float64 or with their coordinates in float32


@dataclass(frozen=True)
class Subspace:
    """Hold a group's mean patch and its principal directions."""

    mean: Tensor
    """float64 (D,)."""
    directions: Tensor
    """float64 (D, k), orthonormal, those of the largest variance first."""

    def residuals(self, embeddings: np.ndarray) -> np.ndarray:
        """Measure how far patches (n, P, D) are from the subspace: float32 (n, P), the length of what it lacks.

        Raises:
            PatcheadError: an embedding is zero, infinite or NaN.
        """
        device = str(self.mean.device)
        mean, directions = self.mean.float(), self.directions.float()
        out = np.empty(embeddings.shape[:2], np.float32)
        for cut in _cuts(embeddings):
            centred = prepare(embeddings[cut], device=device).sub_(mean)
            rest = centred - (centred @ directions) @ directions.T
            out[cut] = torch.linalg.vector_norm(rest, dim=-1).cpu().numpy()
        return out


class SubspaceFit:
    """Gather the mean and the covariance of a group's patches, fed in portions of any size, in float64.

    Sums of float64 do not depend on the portions but for their rounding, 1e-15 of their size; 8 · D² bytes are held.
    """

    def __init__(self, dim: int, device: str = "cpu") -> None:
        """
        Args:
            dim: D.
            device: where the sums are.
        """
        self._device = device
        self._count = 0
        self._sum = torch.zeros(dim, dtype=torch.float64, device=device)
        self._outer = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def add(self, embeddings: np.ndarray, first: int) -> None:
        """Take images (n, P, D), the first of which is image ``first`` of the group.

        Every fifth patch counts: those p of image i with (i + p) divisible by 5, so that every place takes part.

        Raises:
            PatcheadError: an embedding is zero, infinite or NaN.
        """
        n, patches, _ = embeddings.shape
        taken = (np.arange(first, first + n)[:, None] + np.arange(patches)) % STRIDE == 0
        for cut in _cuts(embeddings):
            chosen = embeddings[cut][taken[cut]]
            if not len(chosen):
                continue
            vectors = prepare(chosen[None], device=self._device)[0].double()
            self._count += len(vectors)
            self._sum += vectors.sum(dim=0)
            self._outer.addmm_(vectors.T, vectors)

    def subspace(self, variance: float = VARIANCE) -> Subspace:
        """Make the mean and the fewest principal directions that hold ``variance`` of the variance (method.md §9.2).

        Raises:
            ValueError: no patch was taken.
        """
        if not self._count:
            raise ValueError("a subspace needs at least one patch")
        mean = self._sum / self._count
        values, vectors = torch.linalg.eigh(self._outer / self._count - torch.outer(mean, mean))
        values = values.flip(0).clamp_(min=0)
        held = values.cumsum(0)
        count = int((held < variance * held[-1]).sum()) + 1 if held[-1] > 0 else 0
        return Subspace(mean, vectors.flip(1)[:, :count])


def subspace_residuals(
    blocks: Callable[[], Iterable[np.ndarray]], dim: int, device: str = "cpu"
) -> Iterator[np.ndarray]:
    """Measure the subspace residual of every patch of a group that is read twice, a block of images at a time.

    Args:
        blocks: begins to read the group anew: float16 (n, P, D) in its order, of any n.
        dim: D.
        device: torch device.

    Yields:
        float32 (n, P) of each block.
    """
    fit, first = SubspaceFit(dim, device), 0
    for block in blocks():
        fit.add(block, first)
        first += len(block)
    found = fit.subspace()
    for block in blocks():
        yield found.residuals(block)


def _cuts(embeddings: np.ndarray) -> list[slice]:
    """Images at a time."""
    n, patches, dim = embeddings.shape
    return slices(n, max(1, _VALUES // (patches * dim)))
