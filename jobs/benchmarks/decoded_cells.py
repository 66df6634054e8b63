"""Are defects as well found on photos of 12 megapixels as ours decodes and resizes them? Real cells, enlarged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isqrt

import cv2
import numpy as np
from studies import cells
from studies.features import DINO

from benchmarks.decoding import QUALITY, by_cv2, ours, saved, whole
from benchmarks.records import Record
from patchead.archive.room import Room
from patchead.encoders.base import Encoder
from patchead.evaluation.metrics import image_metrics
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.leave_one_out import score_group

_PIXELS, _BATCH = 12_000_000, 16
_WHOLE = "every pixel resampled"


def decoded_cells(good: int, defective: int, size: int) -> list[Record]:
    """Poly cells of split 0, enlarged to a JPEG of 12 megapixels each and brought to ``size`` pixels in three ways."""
    chosen, encoder = cells.split("poly", 0), DINO.build(size)
    names = chosen.good[:good] + chosen.defective[:defective]
    truth = np.arange(len(names)) >= good
    ways: dict[str, Callable[[bytes, int], np.ndarray]] = {
        _WHOLE: whole,
        "ours": partial(ours, room=Room()),
        "cv2.imdecode": by_cv2,
    }
    photos: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    for name in names:
        encoded = _enlarged(cells.photo(name))
        for way, made in ways.items():
            photos[way].append(made(encoded, size))
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
    side = isqrt(_PIXELS)
    return saved(cv2.resize(photo, (side, side), interpolation=cv2.INTER_CUBIC), "JPEG", quality=QUALITY)


def _scored(encoder: Encoder, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = np.array_split(pictures, -(-len(pictures) // _BATCH))
    stored = np.concatenate([encoder.embed(part).all_vectors() for part in parts])
    scores = score_group(stored, np.arange(len(stored)), aggregation=Aggregation(), memory_bytes=2 * 10**9)
    return stored.astype(np.float32), scores.image_scores
