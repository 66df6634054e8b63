"""The mean over the K nearest (or farthest) references, where all references of a patch are at hand at once."""

from __future__ import annotations

from math import inf

import numpy as np
import torch
from torch import Tensor

from patchead.scoring.similarity import to_distance_

_SLACK = 2e-7  # of a cosine in float32: two multiplications of the same patches differ by less


def mean_of_nearest(distances: Tensor, allowed: np.ndarray | None, k: np.ndarray, aggregate: str) -> np.ndarray:
    """Average the K smallest (or largest) distances of each patch over its references (method.md §3).

    The mean is taken in float64 over sorted values, so it does not depend on the order of the references.

    Args:
        distances: float32 (n, R), of n patches to R images; overwritten. An infinite one stands for an image of which
            nothing is known, and gives an infinite mean where it is among the K.
        allowed: bool (n, R), which images are references of which patch; None: all.
        k: int (n,), K of each patch.
        aggregate: ``nearest`` or ``farthest``.

    Returns:
        float32 (n,); NaN where a patch has no reference.
    """
    sign = 1.0 if aggregate == "nearest" else -1.0
    if sign < 0:
        distances.neg_()
    if distances.device.type == "cpu":
        values = distances.numpy()
        if allowed is not None:
            np.putmask(values, ~allowed, inf)
        values.sort(axis=1)  # SIMD and in place: faster than torch.topk
    else:
        if allowed is not None:
            distances.masked_fill_(distances.new_tensor(~allowed).bool(), inf)
        values = distances.topk(int(k.max(initial=1)), dim=1, largest=False).values.sort(dim=1).values.cpu().numpy()
    out = np.empty(len(values), np.float64)
    for count in np.unique(k):
        rows = k == count
        out[rows] = values[rows, :count].mean(axis=1, dtype=np.float64)
    if allowed is not None:
        out[~allowed.any(axis=1)] = np.nan
    return (sign * out).astype(np.float32)


def cosines_to_distances_(maxima: Tensor, step: float) -> Tensor:
    """Do what `similarity.to_distance_` does, on a CPU by one core: its threads would wait for each other."""
    if maxima.device.type != "cpu":
        return to_distance_(maxima, step)
    values = maxima.numpy()
    values *= -0.5 * step
    values += 0.5
    np.clip(values, 0, 1, out=values)
    return maxima


def lower_(maxima: Tensor, dtype: torch.dtype) -> Tensor:
    """Lower cosines of vectors of ``dtype`` in place by what their arithmetic may round, so that a bound stays one."""
    if not dtype.is_floating_point:  # whole numbers are exact
        return maxima
    if maxima.device.type != "cpu":
        return maxima.sub_(maxima.abs().mul_(torch.finfo(dtype).eps).add_(_SLACK))
    values = maxima.numpy()
    values -= np.abs(values) * np.float32(torch.finfo(dtype).eps) + np.float32(_SLACK)
    return maxima
