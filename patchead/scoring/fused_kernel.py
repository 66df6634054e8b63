# ruff: noqa: PLR0917, SIM102 (a kernel has no other way to take arguments, and its constants are apart)
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"
"""The Triton kernel behind `fused_maxima`; importing it needs triton."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tile(NamedTuple):
    """Choose the tile of a similarity matrix that one program holds, and how it is pipelined."""

    rows: int = 256
    columns: int = 128
    depth: int = 64
    warps: int = 8
    stages: int = 3


FLOATS, INTEGERS = Tile(), Tile(rows=128, warps=4, stages=4)
_GROUP = 8  # tiles of a that follow each other over one tile of b: their operands meet in the L2


def launch(
    a: Tensor, b: Tensor, ab: Tensor | None, ba: Tensor | None, *, upper: bool, tile: Tile | None = None
) -> None:
    """Raise ``ab`` (Na, Nb, P) and ``ba`` (Nb, Na, Q), float32 or int32, to the largest dot products of a and b.

    Args:
        a, b: (Na, P, D) and (Nb, Q, D), see `fused_maxima.fused_maxima`.
        ab, ba: contiguous; at the start below every dot product.
        upper: whether only pairs i < j are compared.
        tile: default: that of the dtype.
    """
    (na, p, d), (nb, q, _) = a.shape, b.shape
    whole = a.dtype == torch.int8
    tile = tile or (INTEGERS if whole else FLOATS)
    programs = na * triton.cdiv(p, tile.rows) * nb * triton.cdiv(q, tile.columns)
    _maxima[(programs,)](
        a, b, ab if ab is not None else a, ba if ba is not None else b,
        na, nb, p, q, d, a.stride(0), a.stride(1), b.stride(0), b.stride(1),
        UPPER=upper, BY_ROW=ab is not None, BY_COLUMN=ba is not None, WHOLE=whole, EVEN=d % tile.depth == 0,
        ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=tile.depth, GROUP=_GROUP,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


@triton.jit
def _maxima(
    a, b, ab, ba, na, nb, p, q, d, a_image, a_patch, b_image, b_patch,
    UPPER: tl.constexpr, BY_ROW: tl.constexpr, BY_COLUMN: tl.constexpr, WHOLE: tl.constexpr, EVEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(p, ROWS), tl.cdiv(q, COLUMNS)
    tiles_a, tiles_b = na * down, nb * across
    program = tl.program_id(0)
    first = program // (GROUP * tiles_b) * GROUP
    size = min(tiles_a - first, GROUP)
    at_a = first + program % (GROUP * tiles_b) % size
    at_b = program % (GROUP * tiles_b) // size
    i, j = at_a // down, at_b // across
    if UPPER:
        if j <= i:
            return
    rows, columns = at_a % down * ROWS + tl.arange(0, ROWS), at_b % across * COLUMNS + tl.arange(0, COLUMNS)
    # What lies beyond an image's patches repeats its last one, which changes no maximum.
    x_rows, y_rows, depth = tl.minimum(rows, p - 1), tl.minimum(columns, q - 1), tl.arange(0, DEPTH)
    x = a + i.to(tl.int64) * a_image + x_rows[:, None] * a_patch + depth[None, :]
    y = b + j.to(tl.int64) * b_image + y_rows[None, :] * b_patch + depth[:, None]
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.int32 if WHOLE else tl.float32)
    for k in range(0, d, DEPTH):
        if EVEN:
            sums = tl.dot(tl.load(x), tl.load(y), sums, out_dtype=sums.dtype)
        else:
            u = tl.load(x, mask=depth[None, :] < d - k, other=0)
            v = tl.load(y, mask=depth[:, None] < d - k, other=0)
            sums = tl.dot(u, v, sums, out_dtype=sums.dtype)
        x += DEPTH
        y += DEPTH
    if BY_ROW:
        place = ab + (i.to(tl.int64) * nb + j) * p + rows
        tl.atomic_max(place, tl.max(sums, 1), mask=rows < p, sem="relaxed")
    if BY_COLUMN:
        place = ba + (j.to(tl.int64) * na + i) * q + columns
        tl.atomic_max(place, tl.max(sums, 0), mask=columns < q, sem="relaxed")
