"""Images per second of an encoder on a GPU, with random weights: alone, with transfers, and with plain transfers."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.records import Record, interleaved, ratio
from patchead.encoders import Encoder, EncoderSpec, build
from patchead.encoders.base import IMAGES_PER_PORTION

_SIZE = 448
_REPEATS = 3


def embedding(model: str, images: int) -> list[Record]:
    """Embed ``images`` random images of 448 px in fp16: (a) pixels and vectors stay on the GPU, (b) `Encoder.embed`,
    (c) as it was before: memory that is not pinned, one thing after the other."""
    layers = (6, 9, 12) if "small" in model else (12, 18, 24)
    spec = EncoderSpec(f"timm/{model}", "random", image_size=_SIZE, device="cuda", dtype="fp16", layers=layers)
    encoder = build(spec)
    pixels = np.random.default_rng(0).integers(0, 256, (images, _SIZE, _SIZE, 3), dtype=np.uint8)
    plain = _plainly(encoder, pixels)
    same = bool((plain == encoder.embed(pixels).vectors).all())
    cases: dict[str, Callable[[], object]] = {
        "alone": partial(_alone, encoder, torch.from_numpy(pixels).cuda()),
        "embed": partial(encoder.embed, pixels),
        "plain": partial(_plainly, encoder, pixels),
    }
    seconds = interleaved(cases, _REPEATS)
    figure = partial(Record, benchmark="gpu", case=f"{model}, {_SIZE} px, {images} images", precision="fp16")
    rates = {name: images / statistics.median(taken) for name, taken in seconds.items()}
    return [
        figure(metric="images per second, without transfers", value=rates["alone"], unit="1/s"),
        figure(metric="images per second, from memory to memory", value=rates["embed"], unit="1/s"),
        figure(metric="speed over plain transfers", value=ratio(seconds["plain"], seconds["embed"]), unit="x"),
        figure(metric="the same bits as with plain transfers (1: yes)", value=float(same), target=">= 1"),
    ]


def _alone(encoder: Encoder, pixels: torch.Tensor) -> None:
    for first in range(0, len(pixels), IMAGES_PER_PORTION):
        encoder.compute(pixels[first : first + IMAGES_PER_PORTION])
    torch.cuda.synchronize()


def _plainly(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    parts = []
    for first in range(0, len(pixels), IMAGES_PER_PORTION):
        vectors, *_ = encoder.compute(torch.tensor(pixels[first : first + IMAGES_PER_PORTION], device="cuda"))
        parts.append(vectors.cpu().numpy())
    return np.concatenate(parts)
