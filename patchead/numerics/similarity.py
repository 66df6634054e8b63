"""Nearest-patch distances between blocks of images: one matrix product, both directions, bounded memory.

The product of two blocks is cut into sub-blocks that are reduced to row and column maxima while they are still in
cache, so no matrix of patches x patches is ever written out. Maxima are taken of the cosine; the distance
d = (1 - cos) / 2 (method.md section 2; PatchEAD section 3.1, eq. 2) is one affine map at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from patchead.errors import PatcheadError, SettingsError, bad_value

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# Half of the 2 MB L2 that server cores have: the other half is for the operands. A GPU takes the whole budget.
CPU_BLOCK_BYTES_PER_THREAD = 1 << 20
_ALIGN = 16  # patches per step of the matrix kernels; parts of one image are cut at multiples of it
_SELF_ROWS = 4096
PREPARE_VALUES = 1 << 20  # values converted at a time, which bounds the float32 scratch of `prepare`
COSINE_FLOOR = -2.0  # below every cosine: the neutral element of the maximum

# (first image, image after the last, first patch, patch after the last)
_Chunk = tuple[int, int, int, int]


def dtype_of(precision: str) -> torch.dtype:
    """The torch dtype of ``fp32``, ``fp16`` or ``bf16``.

    Raises:
        SettingsError: another name.
    """
    if precision not in DTYPES:
        raise SettingsError(bad_value("scoring.precision", precision, f"one of {', '.join(DTYPES)}"))
    return DTYPES[precision]


def prepare(
    embeddings: np.ndarray, *, device: str = "cpu", precision: str = "fp32", positions: np.ndarray | None = None
) -> Tensor:
    """Patch embeddings (N, P, D) float16 as unit vectors (N, P, D) of ``precision`` on ``device``.

    Stored vectors are unit vectors rounded to float16; the norm is made exact again in float32 before the cast.
    ``positions`` (N,) are the images' places in their group, for the text of an error; default: 0, 1, 2 …

    Raises:
        ValueError: not a three-dimensional array of floats, or an empty one.
        SettingsError: unknown precision.
        PatcheadError: a vector is zero, infinite or NaN.
    """
    dtype = dtype_of(precision)
    if embeddings.ndim != 3 or embeddings.size == 0 or embeddings.dtype.kind != "f":
        raise ValueError(f"embeddings must be floats (N, P, D), none 0; got {embeddings.dtype} {embeddings.shape}")
    out = torch.empty(embeddings.shape, dtype=dtype, device=device)
    step = max(1, PREPARE_VALUES // (embeddings.shape[1] * embeddings.shape[2]))
    for start in range(0, len(embeddings), step):
        # numpy copies because arrays from Arrow or the object store are read-only, which torch refuses.
        part = torch.from_numpy(np.array(embeddings[start : start + step])).to(device).float()
        norm = torch.linalg.vector_norm(part, dim=-1, keepdim=True)
        bad = ~(torch.isfinite(norm) & (norm > 0))
        if bool(bad.any()):
            image, patch = (int(index) for index in bad[..., 0].nonzero()[0])
            image = start + image if positions is None else int(positions[start + image])
            raise PatcheadError(
                f"the embedding of patch {patch} of image {image} is zero, infinite or NaN: it has no direction "
                "to compare. Embed the image again, or look at the encoder and its dtype."
            )
        out[start : start + step] = part.div_(norm)
    return out


def tile(a: Tensor, b: Tensor, *, budget_bytes: int) -> tuple[Tensor, Tensor]:
    """Nearest distances between two blocks of unit vectors, both directions from one matrix product.

    Args:
        a: (Na, P, D), as from `prepare`.
        b: (Nb, Q, D), same D, dtype and device.
        budget_bytes: the product held at any moment is not larger; on a CPU it is also kept to the L2 cache.

    Returns:
        ``ab`` float32 (Na, Nb, P), the distance in [0, 1] of each patch of a to the nearest patch of each image of b,
        and ``ba`` float32 (Nb, Na, Q), the reverse.

    Raises:
        ValueError: shapes, dtypes or devices that do not go together, or a budget too small for one number.
    """
    ab, ba = _floor(len(a), len(b), a.shape[1], a), _floor(len(b), len(a), b.shape[1], a)
    cosine_maxima(a, b, ab, ba, budget_bytes=budget_bytes)
    return to_distance_(ab), to_distance_(ba)


def tile_self(a: Tensor, *, budget_bytes: int) -> Tensor:
    """`tile` of a block with itself, for about half the work: (Na, P, D) → float32 (Na, Na, P).

    The diagonal (an image against itself) is 0: it is no reference of itself, so it is not computed.
    """
    out = _floor(len(a), len(a), a.shape[1], a)
    cosine_maxima_self(a, out, budget_bytes=budget_bytes)
    to_distance_(out).diagonal().zero_()
    return out


def one_way(a: Tensor, b: Tensor, *, budget_bytes: int) -> Tensor:
    """The first result of `tile` alone: float32 (Na, Nb, P)."""
    ab = _floor(len(a), len(b), a.shape[1], a)
    cosine_maxima(a, b, ab, None, budget_bytes=budget_bytes)
    return to_distance_(ab)


def to_distance_(cosine: Tensor) -> Tensor:
    """(1 - cos) / 2, clipped to [0, 1], in place."""
    return cosine.mul_(-0.5).add_(0.5).clamp_(0, 1)


def cosine_maxima_self(a: Tensor, out: Tensor, *, budget_bytes: int) -> None:
    """`cosine_maxima` of a block (N, P, D) with itself into ``out`` (N, N, P), each pair of images once.

    Entries of an image with itself are left as they are or hold 1.
    """
    rows, _ = block_shape(a, a, budget_bytes=budget_bytes)
    # Pairs inside one step are multiplied twice, so steps are no larger than the matrix kernels need.
    step = max(1, min(rows, _SELF_ROWS) // a.shape[1])
    for start in range(0, len(a), step):
        stop = min(start + step, len(a))
        if stop - start > 1:
            cosine_maxima(a[start:stop], a[start:stop], out[start:stop, start:stop], None, budget_bytes=budget_bytes)
        if stop < len(a):
            upper, lower = out[start:stop, stop:], out[stop:, start:stop]
            cosine_maxima(a[start:stop], a[stop:], upper, lower, budget_bytes=budget_bytes)


def cosine_maxima(a: Tensor, b: Tensor, ab: Tensor, ba: Tensor | None, *, budget_bytes: int) -> None:
    """Raise ``ab`` (Na, Nb, P) and ``ba`` (Nb, Na, Q) to the largest cosines of ``a`` (Na, P, D) and ``b`` (Nb, Q, D).

    ``ab`` and ``ba`` come filled with something below -1 and may be views of a larger array.
    """
    if a.ndim != 3 or b.ndim != 3 or a.shape[2] != b.shape[2] or a.dtype != b.dtype or a.device != b.device:
        raise ValueError(
            f"a (Na, P, D) and b (Nb, Q, D) must share D, dtype and device; "
            f"got {tuple(a.shape)} {a.dtype} {a.device} and {tuple(b.shape)} {b.dtype} {b.device}"
        )
    rows, columns = block_shape(a, b, budget_bytes=budget_bytes)
    product = torch.empty(rows * columns, dtype=a.dtype, device=a.device)
    for j0, j1, q0, q1 in _chunks(len(b), b.shape[1], columns):
        y = b[j0:j1, q0:q1]
        for i0, i1, p0, p1 in _chunks(len(a), a.shape[1], rows):
            row_max, column_max = _product_maxima(a[i0:i1, p0:p1], y, product, both=ba is not None)
            _raise(ab[i0:i1, j0:j1, p0:p1], row_max.transpose(1, 2))
            if ba is not None and column_max is not None:
                _raise(ba[j0:j1, i0:i1, q0:q1], column_max.transpose(0, 1))


def block_shape(a: Tensor, b: Tensor, *, budget_bytes: int) -> tuple[int, int]:
    """Rows and columns of one product sub-block of a (Na, P, D) and b (Nb, Q, D), within ``budget_bytes``.

    A whole number of images where they fit, else a part of one; about twice as many rows as columns, which the
    CPU's matrix kernels like best.

    Raises:
        ValueError: the budget does not hold one number.
    """
    budget = budget_bytes
    if a.device.type == "cpu":
        budget = min(budget, CPU_BLOCK_BYTES_PER_THREAD * torch.get_num_threads())
    values = budget // a.element_size()
    if values < 1:
        raise ValueError(bad_value("budget_bytes", budget_bytes, f"at least {a.element_size()}"))
    rows = _fitting(len(a), a.shape[1], min(values, isqrt(2 * values)))
    return rows, _fitting(len(b), b.shape[1], values // rows)


def _fitting(n_images: int, patches: int, limit: int) -> int:
    """The largest step ≤ ``limit`` of whole images, or, where none fits, of even parts of one."""
    if patches <= limit:
        return min(n_images, limit // patches) * patches
    parts = -(-patches // limit)
    even = -(-patches // parts)
    return min(limit, -(-even // _ALIGN) * _ALIGN)


def _chunks(n_images: int, patches: int, step: int) -> Iterator[_Chunk]:
    if step >= patches:
        images = step // patches
        for start in range(0, n_images, images):
            yield start, min(start + images, n_images), 0, patches
        return
    for image in range(n_images):
        for start in range(0, patches, step):
            yield image, image + 1, start, min(start + step, patches)


def _product_maxima(x: Tensor, y: Tensor, product: Tensor, *, both: bool) -> tuple[Tensor, Tensor | None]:
    """Row maxima (I, P, J) and column maxima (I, J, Q) of the cosines of x (I, P, D) and y (J, Q, D).

    ``product`` is flat scratch of at least I·P·J·Q. A fused kernel for an accelerator would replace this function.
    """
    (i, p, d), (j, q, _) = x.shape, y.shape
    cosine = product[: i * p * j * q].view(i * p, j * q)
    torch.mm(x.reshape(i * p, d), y.reshape(j * q, d).t(), out=cosine)
    row_max = cosine.view(i, p, j, q).amax(3)
    return row_max, cosine.view(i, p, j * q).amax(1).view(i, j, q) if both else None


def _raise(target: Tensor, values: Tensor) -> None:
    target.copy_(torch.maximum(target, values))


def _floor(n: int, m: int, patches: int, like: Tensor) -> Tensor:
    return torch.full((n, m, patches), COSINE_FLOOR, dtype=torch.float32, device=like.device)
