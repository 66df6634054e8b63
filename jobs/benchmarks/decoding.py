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
from torch.nn.functional import interpolate

from benchmarks.records import Record, interleaved, ratio
from patchead.archive.decode import decode, fit
from patchead.archive.reduced import decode_at_least
from patchead.archive.resize import SHRINK
from patchead.archive.room import Room
from patchead.maps.heatmap import overlay
from patchead.threads import on_one_core

SIZES = {1.3: (1280, 1024), 5: (2592, 1944), 12: (4000, 3000), 20: (5472, 3648)}
"""Width and height by megapixels."""
PILLOW = "Pillow alone"
"""The path that was taken when the target was set, which is a multiple of its speed."""
QUALITY = 90
DRAWN = 1024
"""The longer side of a heatmap by default."""


def decoding(megapixels: tuple[float, ...], size: int, *, repeats: int) -> list[Record]:
    """A photo of each size as JPEG and PNG, decoded and resized to ``size`` pixels, and the embeddings it then has."""
    encoder = DINO.build(size)
    records = []
    for amount in megapixels:
        for kind, options in (("JPEG", {"quality": QUALITY}), ("PNG", {"compress_level": 1})):
            encoded = saved(photo(*SIZES[amount]), kind, **options)
            ways, steps = _ways(encoded, size, jpeg=kind == "JPEG"), _steps(encoded, size, jpeg=kind == "JPEG")
            seconds = on_one_core(partial(_timed, ways | steps, repeats), torch.device("cpu"))
            case = f"{amount} megapixels, {kind} of {len(encoded) / 1e6:.1f} MB, to {size} px"
            figure = partial(Record, benchmark="decode", case=case, precision="-")
            for name in ways:
                rate = 1 / statistics.median(seconds[name])
                records.append(figure(metric=f"images per second and core, {name}", value=rate, unit="1/s"))
            for name in steps:
                took = 1e3 * statistics.median(seconds[name])
                records.append(figure(metric=f"milliseconds of a core, {name}", value=took, unit="ms"))
            target = ">= 4" if (amount, kind) == (12, "JPEG") else None
            for name, aim in ((PILLOW, target), ("whole", None)):
                speed = ratio(seconds[name], seconds["ours"])
                records.append(figure(metric=f"speed of ours over {name}", value=speed, unit="x", target=aim))
            vectors = encoder.embed(np.stack([way() for way in ways.values()])).all_vectors().astype(np.float32)
            exact = dict(zip(ways, vectors, strict=True))["whole"]
            for name, found in zip(ways, vectors, strict=True):
                if name != "whole":
                    cosine = float((found * exact).sum(axis=1).mean())
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


def whole(encoded: bytes, size: int) -> np.ndarray:
    """Every pixel resampled by Pillow."""
    return np.array(Image.fromarray(decode(encoded)).resize((size, size), Image.Resampling.BICUBIC))


def ours(encoded: bytes, size: int, room: Room) -> np.ndarray:
    """As a unit's images are decoded and fitted."""
    return fit(decode(encoded, room=room), size, "squash")


def by_cv2(encoded: bytes, size: int) -> np.ndarray:
    """OpenCV's own reader, and its resizing by areas."""
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def drawn(pixels: np.ndarray) -> np.ndarray:
    """The photo as a heatmap is laid over it, without the heatmap."""
    heat = np.zeros((DRAWN * pixels.shape[0] // pixels.shape[1], DRAWN), np.float32)
    return overlay(pixels, heat, 0.0, 1.0)


def _ways(encoded: bytes, size: int, *, jpeg: bool) -> dict[str, Callable[[], Any]]:
    """Ours; every pixel resampled; ours as it was first; OpenCV's; torch's resizing; JPEG at a smaller scale."""

    def by_pillow() -> np.ndarray:
        pixels = np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))
        return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))

    def by_torch() -> np.ndarray:
        pixels = torch.from_numpy(decode(encoded)).permute(2, 0, 1)[None]
        return interpolate(pixels, (size, size), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()

    def scaled() -> np.ndarray:
        return fit(simplejpeg.decode_jpeg(encoded, min_height=SHRINK * size, min_width=SHRINK * size), size, "squash")

    room = Room()
    ways: dict[str, Callable[[], Any]] = {
        "whole": partial(whole, encoded, size),
        "ours": partial(ours, encoded, size, room),
        PILLOW: by_pillow,
        "cv2.imdecode": partial(by_cv2, encoded, size),
        "resized by torch": by_torch,
    }
    return ways | ({"scaled transform": scaled} if jpeg else {})


def _steps(encoded: bytes, size: int, *, jpeg: bool) -> dict[str, Callable[[], Any]]:
    """What ours is made of, and, of JPEG, what libjpeg-turbo alone takes: no way is faster than that."""
    room, least = Room(), SHRINK * size
    pixels = decode(encoded, room=Room())
    steps: dict[str, Callable[[], Any]] = {
        "ours: decoding": lambda: decode(encoded, room=room),
        "ours: resizing": lambda: fit(pixels, size, "squash"),
        f"the photo of a heatmap of {DRAWN:,} px": lambda: drawn(decode_at_least(encoded, DRAWN)),
        "the same, decoded whole": lambda: drawn(decode(encoded)),
    }
    if not jpeg:
        return steps
    eighth = {"min_height": -(-pixels.shape[0] // 8), "min_width": -(-pixels.shape[1] // 8)}
    return steps | {
        "libjpeg-turbo alone, every pixel": lambda: simplejpeg.decode_jpeg(encoded),
        "libjpeg-turbo alone, scaled transform": lambda: simplejpeg.decode_jpeg(
            encoded, min_height=least, min_width=least
        ),
        "libjpeg-turbo alone, grey at an eighth: reading the coefficients": lambda: simplejpeg.decode_jpeg(
            encoded, colorspace="GRAY", **eighth
        ),
    }


def saved(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    """A file of Pillow's format ``kind``."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()
