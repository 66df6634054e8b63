"""Arrays to a GPU and back while it computes: pinned memory, and a stream of its own for each direction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices

#: Pixels uint8 (b, S, S, 3) on the device -> one tensor per result, each with b entries.
Compute = Callable[[Tensor], tuple[Tensor, ...]]
_SLOTS = 2


def room(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate an array in this machine's memory for results of ``device``: pinned where that is a GPU."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def uploads(parts: Iterable[np.ndarray], device: torch.device) -> Iterator[Tensor]:
    """Yield arrays as tensors on a GPU; each is copied to pinned memory while the GPU works on the one before.

    Args:
        parts: of one dtype and of one shape but for the first axis, the first of them the longest; may be read-only.
        device: a CUDA device.
    """
    stream, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    staged: list[Tensor] = []
    gone: list[torch.cuda.Event] = []
    for turn, part in enumerate(parts):
        slot = turn % _SLOTS
        if turn < _SLOTS:
            staged.append(torch.from_numpy(np.empty(part.shape, part.dtype)).pin_memory())
        else:
            gone[slot].synchronize()  # what was in it has left
        np.copyto(staged[slot][: len(part)].numpy(), part)
        with torch.cuda.stream(stream):
            there = staged[slot][: len(part)].to(device, non_blocking=True)
            left = stream.record_event()
        gone[slot:] = [left, *gone[slot + 1 :]]
        here.wait_stream(stream)
        there.record_stream(here)
        yield there
    stream.synchronize()  # the pinned memory is given back


def over_portions(
    compute: Compute, images: np.ndarray, results: tuple[Tensor, ...], step: int, device: torch.device
) -> None:
    """Call ``compute`` on ``step`` images at a time, on a GPU; its results are in ``results`` when this returns.

    While one portion is computed the next one's pixels are on their way there, and the last one's vectors on their
    way back: 3 to 7 times as fast as one thing after the other from memory that is not pinned (`jobs/benchmark.py gpu
    --full` on an H100).

    Args:
        compute: what to do.
        images: uint8 (B, S, S, 3); may be read-only.
        results: of `room`, one for each tensor that ``compute`` returns, with B entries.
        step: images of a portion.
        device: a CUDA device.
    """
    coming, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    portions = slices(len(images), step)
    for portion, pixels in zip(portions, uploads((images[cut] for cut in portions), device), strict=True):
        found = compute(pixels)
        coming.wait_stream(here)
        with torch.cuda.stream(coming):
            for result, tensor in zip(results, found, strict=True):
                result[portion].copy_(tensor, non_blocking=True)
                tensor.record_stream(coming)
    coming.synchronize()
