"""Photos with planted defects, and how well patch scores find their pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from planted import plant
from sklearn.metrics import roc_auc_score

from patchead.evaluation.metrics import PixelHistogram
from patchead.maps.heatmap import heatmap

USUAL = ("scratch", "stain", "smear", "paste", "hole", "tint")
"""Kinds of defect that take turns where pixels are looked for."""
METRICS = ("pixel AUROC", "PRO", "F1-max", "image AUROC")


@dataclass(frozen=True)
class Shot:
    """One photo, uint8 (H, W, 3), with its mask, bool (H, W), and the kind of its defect; empty where it has none."""

    image: np.ndarray
    mask: np.ndarray
    kind: str = ""


def good(image: np.ndarray) -> Shot:
    """A photo without a defect."""
    return Shot(image, np.zeros(image.shape[:2], bool))


def planted(photos: Sequence[np.ndarray], first_seed: int = 0) -> list[Shot]:
    """A defect in every photo, the kinds taking turns."""
    shots = []
    for index, photo in enumerate(photos):
        kind = USUAL[index % len(USUAL)]
        defect = plant(photo, kind, first_seed + index)
        shots.append(Shot(defect.image, defect.mask, kind))
    return shots


def metrics(shots: Sequence[Shot], maps: Iterable[np.ndarray], scores: np.ndarray) -> dict[str, float]:
    """The four figures of one group.

    Args:
        shots: N photos, some of them defective.
        maps: their patch scores (h, w), in that order.
        scores: float (N,), their image scores.
    """
    counts = PixelHistogram()
    for shot, patches in zip(shots, maps, strict=True):
        height, width = shot.mask.shape
        counts.add(np.clip(heatmap(patches, width, height, max_side=max(width, height)), 0, 1), shot.mask)
    found = counts.metrics()
    if found.auroc is None or found.pro is None or found.f1_max is None:
        raise ValueError("a group needs defective and normal pixels")
    image = float(roc_auc_score([bool(shot.kind) for shot in shots], scores))
    return dict(zip(METRICS, (found.auroc, found.pro, found.f1_max, image), strict=True))
