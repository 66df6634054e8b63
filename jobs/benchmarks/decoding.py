"""What does it take to bring a large photo to the encoder's size on one core? Ways to do it, side by side."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image
from skimage import data
from studies.features import DINO

from benchmarks.records import Record, interleaved, ratio
from patchead.archive.decode import SHRINK, decode, fit
from patchead.threads import on_one_core

SIZES = {1.3: (1280, 1024), 5: (2592, 1944), 12: (4000, 3000), 20: (5472, 3648)}
"""Width and height by megapixels."""
_QUALITY = 90


def decoding(megapixels: tuple[float, ...], size: int, *, repeats: int) -> list[Record]:
    """A photo of each size as JPEG and PNG, decoded and resized to ``size`` pixels, and the embeddings it then has."""
    encoder = DINO.build(size)
    records = []
    for amount in megapixels:
        for kind, options in (("JPEG", {"quality": _QUALITY}), ("PNG", {"compress_level": 1})):
            encoded = _saved(photo(*SIZES[amount]), kind, **options)
            ways = _ways(encoded, size, jpeg=kind == "JPEG")
            seconds = on_one_core(partial(_timed, ways, repeats), torch.device("cpu"))
            case = f"{amount} megapixels, {kind} of {len(encoded) / 1e6:.1f} MB, to {size} px"
            figure = partial(Record, benchmark="decode", case=case, precision="-")
            for name in ways:
                rate = 1 / statistics.median(seconds[name])
                records.append(figure(metric=f"images per second and core, {name}", value=rate, unit="1/s"))
            target = ">= 4" if (amount, kind) == (12, "JPEG") else None
            speed = ratio(seconds["whole"], seconds["ours"])
            records.append(figure(metric="speed of ours over whole", value=speed, unit="x", target=target))
            vectors = encoder.embed(np.stack([way() for way in ways.values()])).all_vectors().astype(np.float32)
            whole = dict(zip(ways, vectors, strict=True))["whole"]
            for name, found in zip(ways, vectors, strict=True):
                if name != "whole":
                    cosine = float((found * whole).sum(axis=1).mean())
                    records.append(figure(metric=f"cosine of the embeddings, {name} and whole", value=cosine))
    return records


def _timed(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    cv2.setNumThreads(1)
    return interleaved(ways, repeats)


def photo(width: int, height: int) -> np.ndarray:
    """A colour photo of scikit-image, enlarged, with the noise of a camera: uint8 (height, width, 3)."""
    enlarged = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 4, enlarged.shape)
    return (enlarged + noise).clip(0, 255).astype(np.uint8)


def _ways(encoded: bytes, size: int, *, jpeg: bool) -> dict[str, Callable[[], Any]]:
    """Ours; every pixel resampled; OpenCV's; and JPEG decoded at the smallest scale of its transform."""

    def whole() -> np.ndarray:
        return np.array(Image.fromarray(decode(encoded)).resize((size, size), Image.Resampling.BICUBIC))

    def by_cv2() -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
        return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)

    def scaled() -> np.ndarray:
        return fit(simplejpeg.decode_jpeg(encoded, min_height=SHRINK * size, min_width=SHRINK * size), size, "squash")

    ways: dict[str, Callable[[], Any]] = {
        "whole": whole,
        "ours": lambda: fit(decode(encoded), size, "squash"),
        "cv2.imdecode": by_cv2,
    }
    return ways | ({"scaled transform": scaled} if jpeg else {})


def _saved(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()
