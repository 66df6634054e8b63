"""Are defects as well found on photos of 12 megapixels as ours decodes and resizes them? Real cells, enlarged."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from math import isqrt

import cv2
import numpy as np
from PIL import Image
from studies import cells
from studies.features import DINO

from benchmarks.records import Record
from patchead.archive.decode import decode, fit
from patchead.archive.room import Room
from patchead.encoders.base import Encoder
from patchead.evaluation.metrics import image_metrics
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.leave_one_out import score_group

_PIXELS, _QUALITY, _BATCH = 12_000_000, 90, 16
_WHOLE = "every pixel resampled"


def decoded_cells(good: int, defective: int, size: int) -> list[Record]:
    """Poly cells of split 0, enlarged to a JPEG of 12 megapixels each and brought to ``size`` pixels in three ways."""
    chosen, encoder = cells.split("poly", 0), DINO.build(size)
    names = chosen.good[:good] + chosen.defective[:defective]
    truth = np.arange(len(names)) >= good
    photos = dict[str, list[np.ndarray]]()
    room = Room()
    for name in names:
        data = _enlarged(cells.photo(name))
        for way, made in _WAYS.items():
            photos.setdefault(way, []).append(made(data, size, room))
    found = {way: _scored(encoder, np.stack(pictures)) for way, pictures in photos.items()}
    case = f"poly cells, {good} good and {defective} defective, JPEG of 12 megapixels, to {size} px"
    figure = partial(Record, benchmark="decode-cells", case=case, precision="fp32")
    whole_vectors, whole_scores = found[_WHOLE]
    records = []
    for way, (vectors, scores) in found.items():
        records.append(figure(metric=f"AUROC, {way}", value=image_metrics(scores, truth).auroc))
        if way != _WHOLE:
            cosine = float((vectors * whole_vectors).sum(axis=-1).mean())
            records.append(figure(metric=f"cosine of the embeddings, {way} and whole", value=cosine))
            change = float(np.abs(scores - whole_scores).max())
            records.append(figure(metric=f"largest change of an image score, {way}", value=change))
    return records


def _enlarged(photo: np.ndarray) -> bytes:
    side, sink = isqrt(_PIXELS), io.BytesIO()
    enlarged = cv2.resize(photo, (side, side), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(enlarged).save(sink, "JPEG", quality=_QUALITY)
    return sink.getvalue()


def _ours(data: bytes, size: int, room: Room) -> np.ndarray:
    return fit(decode(data, room=room), size, "squash")


def _whole(data: bytes, size: int, room: Room) -> np.ndarray:
    pixels = Image.fromarray(np.ascontiguousarray(decode(data, room=room)))
    return np.array(pixels.resize((size, size), Image.Resampling.BICUBIC))


def _by_cv2(data: bytes, size: int, _room: Room) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


_WAYS: dict[str, Callable[[bytes, int, Room], np.ndarray]] = {_WHOLE: _whole, "ours": _ours, "cv2.imdecode": _by_cv2}


def _scored(encoder: Encoder, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = np.array_split(pictures, -(-len(pictures) // _BATCH))
    stored = np.concatenate([encoder.embed(part).all_vectors() for part in parts])
    scores = score_group(stored, np.arange(len(stored)), aggregation=Aggregation(), memory_bytes=2 * 10**9)
    return stored.astype(np.float32), scores.image_scores
