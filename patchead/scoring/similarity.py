"""Nearest-patch distances between blocks of images: one multiplication, both directions, bounded memory.

The similarity matrix of two blocks is cut into sub-blocks that are reduced to row and column maxima while they are
still in cache, so no matrix of patches x patches is ever written out. Maxima are taken of the cosine; the distance
d = (1 - cos) / 2 (method.md §2; PatchEAD §3.1, eq. 2) is one affine map at the end.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from math import isqrt

import torch
from torch import Tensor

from patchead.batches import slices
from patchead.errors import bad_value
from patchead.scoring.block_maxima import Pair, l2_bytes, new_scratch, write_maxima
from patchead.scoring.fused_maxima import fused_maxima, fused_maxima_self, is_fused
from patchead.scoring.precision import allocate, cosine_step, matmul_dtype
from patchead.threads import core_map, threads_of

# A sub-block of one core, in units of its L2 cache. Integers and bfloat16 are multiplied so fast that writing the
# results decides; float32 ones gain more from long operands than they lose to the L3.
CACHE_SHARES = {torch.float32: 4.0, torch.float16: 1.0, torch.bfloat16: 1.0, torch.int8: 0.5}
_CPU_ROWS = 1024
_ALIGN = 64  # columns per step of torch's maxima, slow on what is left over; parts of one image are multiples of it
_SHARES_PER_THREAD = 8  # of the triangle of a block with itself: its shares differ, so there are more of them


def tile(a: Tensor, b: Tensor, *, budget_bytes: int) -> tuple[Tensor, Tensor]:
    """Measure the nearest distances between two blocks of unit vectors, both directions from one multiplication.

    Args:
        a: (Na, P, D), as from `precision.prepare`.
        b: (Nb, Q, D), same D, dtype and device.
        budget_bytes: the matrices held at any moment are not larger; on a CPU they are also kept near the cache.

    Returns:
        ``ab`` float32 (Na, Nb, P), the distance in [0, 1] of each patch of a to the nearest patch of each image of b,
        and ``ba`` float32 (Nb, Na, Q), the reverse.

    Raises:
        ValueError: shapes, dtypes or devices that do not go together, or a budget too small for one image.
    """
    ab, ba = _empty(len(a), len(b), a), _empty(len(b), len(a), b)
    cosine_maxima(a, b, ab, ba, budget_bytes=budget_bytes)
    return to_distance_(ab, cosine_step(a)), to_distance_(ba, cosine_step(a))


def tile_self(a: Tensor, *, budget_bytes: int) -> Tensor:
    """Measure the `tile` of a block with itself, for about half the work: (Na, P, D) → float32 (Na, Na, P).

    The diagonal (an image against itself) is 0: it is no reference of itself, so it is not computed.
    """
    out = _empty(len(a), len(a), a)
    cosine_maxima_self(a, out, budget_bytes=budget_bytes)
    to_distance_(out, cosine_step(a)).diagonal().zero_()
    return out


def one_way(a: Tensor, b: Tensor, *, budget_bytes: int) -> Tensor:
    """Measure the first result of `tile` alone: float32 (Na, Nb, P)."""
    ab = _empty(len(a), len(b), a)
    cosine_maxima(a, b, ab, None, budget_bytes=budget_bytes)
    return to_distance_(ab, cosine_step(a))


def to_distance_(maxima: Tensor, step: float) -> Tensor:
    """Turn maxima into (1 - cos) / 2 in place, clipped to [0, 1]; cos is a maximum times ``step`` (`cosine_step`)."""
    return maxima.mul_(-0.5 * step).add_(0.5).clamp_(0, 1)


def cosine_maxima(
    a: Tensor, b: Tensor, ab: Tensor | None, ba: Tensor | None, *, budget_bytes: int, fused: bool | None = None
) -> None:
    """Write the largest cosines of ``a`` (Na, P, D) and ``b`` (Nb, Q, D) to ``ab`` (Na, Nb, P) and ``ba`` (Nb, Na, Q).

    ``ab`` and ``ba`` may be views of a larger array, or None where they are not wanted. The cosines are in units of
    `precision.cosine_step`. ``fused``: whether no similarity matrix is written; default: where `is_fused` says so.
    """
    _require_alike(a, b)
    if is_fused(a) if fused is None else fused:
        fused_maxima(a, b, ab, ba, budget_bytes=budget_bytes)
        return
    if len(b) > len(a):
        a, b, ab, ba = b, a, ba, ab  # the threads share out the images of the first
    shape = block_shape(a, b, budget_bytes=budget_bytes)
    shares = _even_shares(len(a), shape[0] // a.shape[1], threads_of(a.device))
    pairs = [Pair(a[s], b, None if ab is None else ab[s], None if ba is None else ba[:, s]) for s in shares]
    work = partial(write_maxima, shape=shape, scratches=_scratches(a, shape))
    with core_map(a.device, len(pairs)) as run:
        for _ in run(work, pairs):
            pass


def cosine_maxima_self(a: Tensor, out: Tensor, *, budget_bytes: int) -> None:
    """Write the largest cosines of a block (N, P, D) with itself to ``out`` (N, N, P), each pair of images once.

    Entries of an image with itself are 0.
    """
    if is_fused(a):
        fused_maxima_self(a, out, budget_bytes=budget_bytes)
        out.diagonal().zero_()
        return
    shape = block_shape(a, a, budget_bytes=budget_bytes)
    smaller = -(-len(a) // (_SHARES_PER_THREAD * threads_of(a.device)))
    pairs = []
    for s in slices(len(a), min(shape[0] // a.shape[1], smaller)):
        if s.stop < len(a):
            pairs.append(Pair(a[s], a[s.stop :], out[s, s.stop :], out[s.stop :, s]))
        if s.stop - s.start > 1:  # pairs inside a share are multiplied twice
            pairs.append(Pair(a[s], a[s], out[s, s], None))
    work = partial(write_maxima, shape=shape, scratches=_scratches(a, shape))
    with core_map(a.device, len(pairs)) as run:
        for _ in run(work, pairs):
            pass
    out.diagonal().zero_()


def block_shape(a: Tensor, b: Tensor, *, budget_bytes: int) -> tuple[int, int]:
    """Choose rows and columns of one core's similarity matrix of a (Na, P, D) and b (Nb, Q, D).

    All cores' matrices together fit the budget.

    Rows are of whole images; columns are of whole images where they fit, else an even part of one.

    Raises:
        ValueError: the budget does not hold one column per core.
    """
    itemsize, threads, patches = matmul_dtype(a.dtype).itemsize, threads_of(a.device), a.shape[1]
    values = budget_bytes // (itemsize * threads)
    if values < patches:
        raise ValueError(bad_value("budget_bytes", budget_bytes, f"at least {itemsize * threads * patches}"))
    rows = isqrt(2 * values)
    if a.device.type == "cpu":
        values = min(values, max(patches, int(CACHE_SHARES[a.dtype] * l2_bytes()) // itemsize))
        rows = min(rows, _CPU_ROWS)
    rows = patches * min(len(a), max(1, rows // patches))
    return rows, _columns(len(b), b.shape[1], values // rows)


def _require_alike(a: Tensor, b: Tensor) -> None:
    if a.ndim != 3 or b.ndim != 3 or a.shape[2] != b.shape[2] or a.dtype != b.dtype or a.device != b.device:
        raise ValueError(
            f"a (Na, P, D) and b (Nb, Q, D) must share D, dtype and device; "
            f"got {tuple(a.shape)} {a.dtype} {a.device} and {tuple(b.shape)} {b.dtype} {b.device}"
        )


def _even_shares(n: int, most: int, threads: int) -> list[slice]:
    """``n`` images in shares of at most ``most``, as many for each thread."""
    shares = -(-n // most)
    shares = min(n, -(-shares // threads) * threads)
    return slices(n, -(-n // shares))


def _scratches(a: Tensor, shape: tuple[int, int]) -> deque[Tensor]:
    """Room for one similarity matrix per thread, that its shares use again and again: fresh pages cost time."""
    return deque(new_scratch(a, shape) for _ in range(threads_of(a.device)))


def _columns(n_images: int, patches: int, limit: int) -> int:
    """The largest step ≤ ``limit`` of whole images, or, where none fits, of even parts of one."""
    if patches <= limit:
        return min(n_images, limit // patches) * patches
    limit = limit // _ALIGN * _ALIGN or limit
    parts = -(-patches // limit)
    return min(limit, -(-patches // (parts * _ALIGN)) * _ALIGN)


def _empty(n: int, m: int, like: Tensor) -> Tensor:
    """float32 (n, m, P) for the patches of ``like`` (…, P, D)."""
    return allocate((n, m, like.shape[1]), torch.float32, like.device)
