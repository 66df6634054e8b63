"""On a GPU: the largest cosines of two blocks of images in one pass, no similarity matrix written anywhere (Triton).

A tile of the similarity matrix of one image of ``a`` and one of ``b`` stays in registers; its row and column maxima go
to where the maxima of the whole are, by atomic maxima. So the memory traffic is that of the operands and of P numbers
per pair of images, not of P x P. The order of the tiles changes no result: a maximum has none.
"""

from __future__ import annotations

from importlib.util import find_spec
from math import inf

import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring.precision import matmul_dtype

_LEAST = -(2**31) + 1  # below every integer dot product


def is_fused(a: Tensor) -> bool:
    """Tell whether prepared vectors like ``a`` are compared by `fused_maxima` where it can be had.

    Integers on a GPU are, 2.8 times as fast as by written similarity matrices, whose int32 entries are their bulk.
    float16 and bfloat16 could be, at 0.93 to 0.95 times the speed (`jobs/benchmark.py gpu --full` on an H100); float32
    could not: the tensor cores would round it.
    """
    return a.is_cuda and a.dtype == torch.int8 and find_spec("triton") is not None


def fused_maxima(a: Tensor, b: Tensor, ab: Tensor | None, ba: Tensor | None, *, budget_bytes: int) -> None:
    """Write the largest cosines of ``a`` (Na, P, D) and ``b`` (Nb, Q, D) to ``ab`` (Na, Nb, P) and ``ba`` (Nb, Na, Q).

    Args:
        a, b: prepared vectors of one dtype, float16, bfloat16 or int8, on one device; the last axis contiguous.
        ab, ba: where the maxima go, in units of `precision.cosine_step`; None where they are not wanted.
        budget_bytes: maxima that wait to be rounded to the dtype of ``ab`` and ``ba`` take no more.
    """
    for rows in slices(len(a), _images_at_once(b, a.shape[1] + b.shape[1], budget_bytes)):
        x = a[rows]
        there = None if ab is None else _lowest((len(x), len(b), x.shape[1]), x)
        back = None if ba is None else _lowest((len(b), len(x), b.shape[1]), x)
        _launch(x, b, there, back)
        if ab is not None and there is not None:
            ab[rows] = there
        if ba is not None and back is not None:
            ba[:, rows] = back


def fused_maxima_self(a: Tensor, out: Tensor, *, budget_bytes: int) -> None:
    """Write the largest cosines of a block (N, P, D) with itself to ``out`` (N, N, P), each pair of images once.

    Entries of an image with itself are left as they are. The arguments are those of `fused_maxima`.
    """
    for rows in slices(len(a), _images_at_once(a, 2 * a.shape[1], budget_bytes)):
        x, n = a[rows], rows.stop - rows.start
        if rows.stop < len(a):
            fused_maxima(x, a[rows.stop :], out[rows, rows.stop :], out[rows.stop :, rows], budget_bytes=budget_bytes)
        found = _lowest((n, n, a.shape[1]), a)
        _launch(x, x, found, found, upper=True)
        other = ~torch.eye(n, dtype=torch.bool, device=a.device)
        out[rows, rows][other] = found[other].to(out.dtype)


def _launch(a: Tensor, b: Tensor, ab: Tensor | None, ba: Tensor | None, *, upper: bool = False) -> None:
    from patchead.scoring import fused_kernel  # needs triton, which is not on every machine

    fused_kernel.launch(a, b, ab, ba, upper=upper)


def _images_at_once(b: Tensor, patches: int, budget_bytes: int) -> int:
    return max(1, budget_bytes // (4 * len(b) * patches))


def _lowest(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Room for maxima, float32 or int32, below every one."""
    whole = matmul_dtype(like.dtype) == torch.int32
    dtype, value = (torch.int32, _LEAST) if whole else (torch.float32, -inf)
    return torch.full(shape, value, dtype=dtype, device=like.device)
