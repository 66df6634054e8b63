"""How much of the images the window rule takes in hand at a time; no score depends on it (method.md §11)."""

from __future__ import annotations

import torch

from patchead.scoring.memory_budget import SCORE_BYTES, STORED_BYTES
from patchead.scoring.precision import matmul_dtype
from patchead.search.group_vectors import GroupVectors
from patchead.threads import threads_of

_MULTIPLE = 32  # of images at a time, where there is room for as many: of fewer, copies fill them up


def rows_at_once(row_bytes: int, height: int, radius: int, slab_bytes: int) -> int:
    """Count the rows of a grid that, with those of the window around them, take ``slab_bytes``; below 1: not one."""
    return height if not row_bytes else min(height, slab_bytes // row_bytes - 2 * radius)


def images_at_once(vectors: GroupVectors, queries: int, width: int, radius: int, slab_bytes: int) -> tuple[int, int]:
    """Divide ``slab_bytes`` between the queries of one row of the grid, with their maxima, and references' windows.

    Returns:
        How many queries and how many references are in hand at a time; one of each, however little there is.
    """
    of_query, of_reference = image_bytes(vectors.dtype, vectors.dim, len(vectors.references), width, radius)
    asked = _rounded(min(queries, slab_bytes // 2 // of_query))
    pairs = threads_of(vectors.device) * max(_MULTIPLE, asked) * SCORE_BYTES
    return asked, _rounded((slab_bytes - asked * of_query) // (of_reference + pairs))


def image_bytes(dtype: torch.dtype, dim: int, references: int, width: int, radius: int) -> tuple[int, int]:
    """Count the bytes of a query (a row of the grid, and its maxima) and of a reference (that row with its window)."""
    row = width * dim * (dtype.itemsize + STORED_BYTES)
    return row + width * references * matmul_dtype(dtype).itemsize, (2 * radius + 1) * row


def _rounded(images: int) -> int:
    """A multiple, where there are as many: then all but the last block are multiplied by the same kernel."""
    return max(1, images if images < _MULTIPLE else images // _MULTIPLE * _MULTIPLE)
