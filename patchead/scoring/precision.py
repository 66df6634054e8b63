"""Stored embeddings as unit vectors in the arithmetic of their multiplication: fp32, fp16, bf16 or int8."""

from __future__ import annotations

import mmap
from contextlib import suppress
from math import prod

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.errors import PatcheadError, SettingsError, bad_argument
from patchead.scoring import quantize
from patchead.threads import over_threads, threads_of
from patchead.transfers import uploads

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8}
PREPARE_VALUES = 1 << 19  # on a CPU, values converted at a time, which bounds the float32 scratch of `prepare`
_GPU_VALUES = 1 << 24  # of a GPU, whose memory is tens of gigabytes: small portions would keep it waiting
_TENSOR_CORE_STEP = 8  # CUDA's integer multiplication wants D and the columns in multiples of it


def dtype_of(precision: str) -> torch.dtype:
    """Look up the torch dtype of ``fp32``, ``fp16``, ``bf16`` or ``int8``.

    Raises:
        SettingsError: another name.
    """
    if precision not in DTYPES:
        raise SettingsError(bad_argument("precision", precision, f"one of {', '.join(DTYPES)}"))
    return DTYPES[precision]


def matmul_dtype(dtype: torch.dtype) -> torch.dtype:
    """Name the dtype in which dot products of vectors of ``dtype`` are held."""
    return torch.int32 if dtype == torch.int8 else dtype


def maxima_dtype(dtype: torch.dtype) -> torch.dtype:
    """Name the dtype of their maxima: float32 holds the integers exactly, as they are below 2^24."""
    return torch.float32 if dtype == torch.int8 else dtype


def allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Allocate a tensor with nothing in it yet, for what is large and soon given back.

    On a CPU the memory comes from the operating system and goes back to it: freed and taken again through the C
    library, blocks of changing size left up to a third of a small budget in holes.
    """
    size = prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or not size:
        return torch.empty(shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if advice := getattr(mmap, "MADV_HUGEPAGE", None):  # Linux: fewer and larger pages to be given
        with suppress(OSError):  # a kernel without them; it is advice, and nothing depends on it
            pages.madvise(advice)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def cosine_step(a: Tensor) -> float:
    """Give the cosine that 1 in a dot product of prepared vectors (..., D) stands for."""
    return quantize.cosine_step(a.shape[-1]) if a.dtype == torch.int8 else 1.0


def prepare(
    embeddings: np.ndarray,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    positions: np.ndarray | None = None,
    first_patch: int | np.ndarray = 0,
) -> Tensor:
    """Turn patch embeddings (N, P, D) float16 into unit vectors (N, P, D) of ``precision`` on ``device``.

    Stored vectors are unit vectors rounded to float16; the norm is made exact again in float32 before the cast (or
    the rotation and the rounding of `quantize`). ``positions`` (N,) are the images' places in their group, for the
    text of an error; default: 0, 1, 2 …; ``first_patch``, or (N,) of them, is
    the number of the first patch in its image, for the same.

    Raises:
        ValueError: not a three-dimensional array of floats, or an empty one.
        SettingsError: unknown precision, or int8 on a GPU with a D that is no multiple of 8.
        PatcheadError: a vector is zero, infinite or NaN.
    """
    dtype = dtype_of(precision)
    if embeddings.ndim != 3 or embeddings.size == 0 or embeddings.dtype.kind != "f":
        raise ValueError(f"embeddings must be floats (N, P, D), none 0; got {embeddings.dtype} {embeddings.shape}")
    patches, d = embeddings.shape[1:]
    out = allocate(embeddings.shape, dtype, device)
    if precision == "int8" and out.device.type == "cuda" and d % _TENSOR_CORE_STEP:
        raise SettingsError(
            f"`precision` int8 needs embeddings of a multiple of {_TENSOR_CORE_STEP} dimensions on a GPU; these "
            f"have {d}. Use bf16."
        )
    stored, target = embeddings.reshape(-1, d), out.view(-1, d)

    def convert(rows: slice, part: Tensor) -> Tensor:
        """Fill some rows; returns which have no direction."""
        part = part.float()
        norm = torch.linalg.vector_norm(part, dim=-1, keepdim=True)
        part.div_(norm)
        target[rows] = quantize.quantize(part) if dtype == torch.int8 else part
        return ~(torch.isfinite(norm) & (norm > 0))[:, 0]

    def refuse(bad: Tensor, first: int = 0) -> None:
        if bool(bad.any()):
            image, patch = divmod(first + int(bad.nonzero()[0]), patches)
            patch += int(np.broadcast_to(first_patch, len(embeddings))[image])
            raise _no_direction(image if positions is None else int(positions[image]), patch)

    if out.device.type == "cuda":
        cuts = slices(len(stored), max(1, _GPU_VALUES // d))
        parts = uploads((stored[rows] for rows in cuts), out.device)
        refuse(torch.cat([convert(rows, part) for rows, part in zip(cuts, parts, strict=True)]))
        return out

    def on_core(rows: slice) -> None:
        # numpy copies because arrays from Arrow or the object store are read-only, which torch refuses.
        refuse(convert(rows, torch.from_numpy(np.array(stored[rows]))), rows.start)

    over_threads(on_core, slices(len(stored), max(1, PREPARE_VALUES // (threads_of(out.device) * d))), out.device)
    return out


def _no_direction(image: int, patch: int) -> PatcheadError:
    return PatcheadError(
        f"the embedding of patch {patch} of image {image} is zero, infinite or NaN: it has no direction to compare. "
        "Embed the image again, or look at the encoder and its dtype."
    )
