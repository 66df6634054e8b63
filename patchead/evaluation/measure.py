"""Scores of one class against its labels: image metrics, and pixel metrics where there are masks (method.md §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchead.evaluation.datasets import Sample, read_mask
from patchead.evaluation.metrics import (
    ImageMetrics,
    PixelHistogram,
    PixelMetrics,
    VerdictMetrics,
    image_metrics,
    verdict_metrics,
)
from patchead.maps.heatmap import heatmap


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Hold the metrics of one class, and what they leave out.

    ``unscored``: images whose score is NaN, in no metric. ``mapped``: those that the pixel metrics count;
    ``without_mask``: scored anomalous ones that they leave out as nobody drew their defect.
    """

    image: ImageMetrics
    verdict: VerdictMetrics
    pixel: PixelMetrics
    unscored: int
    mapped: int
    without_mask: int


def measure(
    samples: Sequence[Sample],
    image_scores: np.ndarray,
    patch_scores: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    *,
    flagged: np.ndarray,
    fit: str,
    map_side: int,
) -> Figures:
    """Measure N scored images.

    Args:
        samples: N, with labels and masks.
        image_scores: float64 (N,); NaN where there is none.
        patch_scores: float32 (N, h, w), in [0, 1].
        sizes: (width, height) of each image.
        flagged: bool, the verdict on each image that has a score.
        fit: how the images became square.
        map_side: see `score_map`.

    Raises:
        ValueError: a patch score of a scored image lies outside of [0, 1].
        ArchiveError: a mask cannot be read.
    """
    labels = np.array([sample.anomalous for sample in samples], bool)
    scored = ~np.isnan(image_scores)
    histogram, mapped, without_mask = PixelHistogram(), 0, 0
    for i in np.flatnonzero(scored).tolist():
        scores = score_map(patch_scores[i], *sizes[i], fit=fit, side=map_side)
        mask = read_mask(samples[i], (scores.shape[0], scores.shape[1]))
        if mask is None:
            without_mask += 1
            continue
        histogram.add(scores, mask)
        mapped += 1
    image = image_metrics(image_scores[scored], labels[scored])
    return Figures(
        image=image,
        verdict=verdict_metrics(flagged, labels[scored]),
        pixel=histogram.metrics(),
        unscored=int((~scored).sum()),
        mapped=mapped,
        without_mask=without_mask,
    )


def maps_measured(samples: Sequence[Sample]) -> np.ndarray:
    """Tell whose patch scores the pixel metrics depend on: bool (N,); nobody's where no defect is drawn."""
    drawn = np.array([sample.anomalous and sample.mask is not None for sample in samples], bool)
    good = np.array([not sample.anomalous for sample in samples], bool)
    return drawn | good & drawn.any()


def score_map(patch_scores: np.ndarray, width: int, height: int, *, fit: str, side: int) -> np.ndarray:
    """Draw the map that pixel metrics compare with the mask: `heatmap.heatmap` at a fixed size, float32 (H', W').

    ``squash``: ``side`` x ``side`` whatever the image's shape, as the image itself was squashed. ``crop`` and ``pad``:
    the image's own shape with ``side`` as its longer side; what a crop cut off scores 0.
    """
    if fit == "squash":
        width = height = side
    else:
        scale = side / max(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
    drawn = heatmap(patch_scores, width, height, max_side=side, fit=fit)
    return np.minimum(drawn, patch_scores.max())  # an average is no higher; the blur's rounding may be
