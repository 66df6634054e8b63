"""One core's similarity matrices of two blocks of images, each reduced to its maxima while it is in the cache."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring.integer_products import multiplier
from patchead.scoring.precision import allocate, matmul_dtype

_MAXIMA_SHARE = 0.5  # of the L2: rows whose maxima are taken in one go, so that the second pass finds them there
_USUAL_L2 = 1 << 20
_L2_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


class Pair(NamedTuple):
    """Hold two blocks of images and where the maxima of their cosines go: one core's work.

    ``a`` (Na, P, D), ``b`` (Nb, Q, D); ``ab`` (Na, Nb, P) and ``ba`` (Nb, Na, Q) are written to, None where unwanted.
    """

    a: Tensor
    b: Tensor
    ab: Tensor | None
    ba: Tensor | None


def write_maxima(pair: Pair, shape: tuple[int, int], scratches: deque[Tensor]) -> None:
    """Multiply two blocks in pieces of at most ``shape`` and write each piece's maxima over rows and columns.

    Where vectors go to a fused kernel instead (`fused_maxima`), `similarity.cosine_maxima` has chosen it.

    Args:
        pair: the blocks and the places of their maxima.
        shape: rows and columns of a piece, from `similarity.block_shape`.
        scratches: of `new_scratch`, for that shape and these vectors, one for each thread that calls at a time.
    """
    a, b, ab, ba = pair
    scratch = scratches.pop()
    multiply = multiplier(a)
    (_, p, d), (_, q, _) = a.shape, b.shape
    rows, columns = shape
    by_row, by_column = multiples(a)
    plans: dict[tuple[int, int], _Plan] = {}
    for i in slices(len(a), rows // p):
        x = padded(a[i].reshape(-1, d), by_row)
        for j in slices(len(b), max(1, columns // q)):
            y, sizes = b[j].reshape(-1, d), (i.stop - i.start, j.stop - j.start)
            if sizes not in plans:
                plans[sizes] = _Plan.of(a, *sizes, q, columns, scratch)
            plan = plans[sizes]
            for part in plan.parts:
                multiply(x, padded(y[part.cut], by_column).t(), out=part.matrix)
                for step in part.steps:
                    if ab is not None:
                        torch.amax(step.by_row, 3, out=step.row)
                    if ba is not None:
                        torch.amax(step.by_column, 1, out=step.column)
                if ba is not None and len(part.steps) > 1:
                    torch.amax(part.columns, 0, out=part.column)
            if ab is not None:
                ab[i, j] = (plan.row.amax(0) if len(plan.parts) > 1 else plan.row[0]).transpose(1, 2)
            if ba is not None:
                ba[j, i] = plan.column.view(*sizes, q).transpose(0, 1)
    scratches.append(scratch)


def new_scratch(vectors: Tensor, shape: tuple[int, int]) -> Tensor:
    """Allocate room for one similarity matrix of ``shape`` of such vectors (..., D)."""
    rows, columns = padded_shape(*shape, vectors)
    return allocate((rows * columns,), matmul_dtype(vectors.dtype), vectors.device)


@lru_cache(maxsize=1)
def l2_bytes() -> int:
    """Tell the bytes of a core's L2 cache, as Linux does; where it does not, the usual megabyte."""
    text = _L2_SIZE.read_text().strip() if _L2_SIZE.exists() else ""
    return int(text[:-1]) << 10 if text.endswith("K") else _USUAL_L2


class _Step(NamedTuple):
    """Rows of a similarity matrix and the places of their maxima, float or integer: ``by_row`` (I, p, J, w) to ``row``
    (I, p, J), ``by_column`` (I, p, J · w) to ``column`` (I, J · w)."""

    by_row: Tensor
    row: Tensor
    by_column: Tensor
    column: Tensor


class _Part(NamedTuple):
    """One similarity matrix and its maxima: views that are made once, which takes a tenth of a small one's time.

    ``columns`` (steps, I, J · w) are reduced to ``column`` (I, J · w) where there are several steps.
    """

    cut: slice
    matrix: Tensor
    steps: list[_Step]
    columns: Tensor
    column: Tensor

    @classmethod
    def of(cls, matrix: Tensor, cut: slice, row: Tensor, column: Tensor) -> _Part:
        """Of ``matrix``, of at least I · P rows and J · w columns, that gives ``row`` (I, P, J) and ``column``."""
        (i, p, j), width = row.shape, cut.stop - cut.start
        values = matrix[: i * p, :width].view(i, p, j, width // j)
        cuts = slices(p, _rows_at_once(values))
        columns = column.new_empty(len(cuts), i, width) if len(cuts) > 1 else column[None]
        steps = [
            _Step(values[:, c], row[:, c], values[:, c].view(i, -1, width), place)
            for c, place in zip(cuts, columns, strict=True)
        ]
        return cls(cut, matrix, steps, columns, column)


class _Plan(NamedTuple):
    """The similarity matrices of I images x (I, P, D) and J images y (J, Q, D), and where their maxima go.

    Y is either one image, taken ``columns`` patches at a time, or several in one go. ``row`` (parts, I, P, J) are
    maxima over the patches of each y, ``column`` (I, J · Q) over those of each x.
    """

    parts: list[_Part]
    row: Tensor
    column: Tensor

    @classmethod
    def of(cls, a: Tensor, i: int, j: int, q: int, columns: int, scratch: Tensor) -> _Plan:
        p, cuts = a.shape[1], slices(j * q, columns)
        row, column = scratch.new_empty(len(cuts), i, p, j), scratch.new_empty(i, j * q)
        parts = []
        for place, cut in zip(row, cuts, strict=True):
            m, n = padded_shape(i * p, cut.stop - cut.start, a)
            parts.append(_Part.of(scratch[: m * n].view(m, n), cut, place, column[:, cut]))
        return cls(parts, row, column)


def _rows_at_once(matrix: Tensor) -> int:
    """Patches p of a matrix (I, P, J, w) whose values (I, p, J, w) a core's cache keeps from one pass to the next."""
    i, p, j, w = matrix.shape
    if matrix.device.type != "cpu":
        return p
    return max(1, int(_MAXIMA_SHARE * l2_bytes()) // (i * j * w * matrix.itemsize))


def multiples(vectors: Tensor) -> tuple[int, int]:
    """Say what rows and columns of a similarity matrix must be multiples of.

    CUDA's integer multiplication wants more than 16 rows and a multiple of 8 columns.
    """
    return (32, 8) if vectors.is_cuda and vectors.dtype == torch.int8 else (1, 1)


def padded_shape(rows: int, columns: int, vectors: Tensor) -> tuple[int, int]:
    """Round rows and columns of a similarity matrix up to their `multiples`."""
    by_row, by_column = multiples(vectors)
    return -(-rows // by_row) * by_row, -(-columns // by_column) * by_column


def padded(vectors: Tensor, multiple: int) -> Tensor:
    """Repeat the last row of (n, D) up to a multiple of rows, which changes no maximum over rows."""
    missing = -len(vectors) % multiple
    return torch.cat([vectors, vectors[-1:].expand(missing, -1)]) if missing else vectors
