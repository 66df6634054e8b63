"""How well scores find labelled defects: images by their scores, pixels by histograms that add up (method.md §8)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from patchead.evaluation import curves

BINS = 4096
FPR_LIMIT = 0.3
_ONE = 1 << 32  # a whole region, in the fixed-point units in which overlaps are added


@dataclass(frozen=True)
class ImageMetrics:
    """Hold the metrics of one class's image scores. All are None where there is no anomalous or no good image."""

    auroc: float | None
    ap: float | None
    f1_max: float | None


@dataclass(frozen=True)
class PixelMetrics:
    """Hold the metrics of one class's maps. All are None where there is no defect pixel or no normal one."""

    auroc: float | None
    ap: float | None
    pro: float | None
    f1_max: float | None


def image_metrics(scores: np.ndarray, labels: np.ndarray) -> ImageMetrics:
    """Compute AUROC (a tie counts half), average precision and the highest F1 over all thresholds.

    Args:
        scores: float (N,), higher is more anomalous; any finite range.
        labels: bool (N,), True = anomalous.

    Raises:
        ValueError: the shapes differ, the labels are not bool, or a score is not finite.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 1 or labels.shape != scores.shape or labels.dtype != bool:
        raise ValueError(f"need scores (N,) and bool labels (N,); got {scores.shape}, {labels.dtype} {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} image scores are not finite")
    return ImageMetrics(*curves.threshold_metrics(labels, scores))


@dataclass(frozen=True)
class VerdictMetrics:
    """Hold what a verdict flags of one class. F1 is None without both kinds of image, a share without its kind."""

    f1: float | None
    defective_flagged: float | None
    good_flagged: float | None


def verdict_metrics(flagged: np.ndarray, labels: np.ndarray) -> VerdictMetrics:
    """Compute the F1 of a verdict and the shares of anomalous and of good images that it flags.

    Args:
        flagged, labels: bool (N,).

    Examples:
        >>> verdict_metrics(np.array([True, True, False, False]), np.array([True, False, True, False]))
        VerdictMetrics(f1=0.5, defective_flagged=0.5, good_flagged=0.5)
    """
    hits, both = int((flagged & labels).sum()), bool(labels.any() and not labels.all())
    return VerdictMetrics(
        f1=2 * hits / int(flagged.sum() + labels.sum()) if both else None,
        defective_flagged=float(flagged[labels].mean()) if labels.any() else None,
        good_flagged=float(flagged[~labels].mean()) if not labels.all() else None,
    )


class PixelHistogram:
    """Count maps and masks of any number of images in 4,096 bins on [0, 1]; parts from workers add up exactly.

    Scores in one bin count as tied: AUROC is off by at most half the share of (defect, normal) pixel pairs that fall
    into one bin, and so on for the others; the curves pass through the exact ones at every bin's edge.

    A region is an 8-connected component of one image's mask. Its overlap above a threshold is the fraction of its
    pixels there, kept as a fixed-point integer (units of 2^-32) so that no order of adding changes a bit.

    Attributes:
        normal, defect: int64 (4096,), pixels outside and inside of the masks, lowest scores first.
        overlap: int64 (4096,), summed over regions; a region adds 2^32 in all.
        regions: how many.
    """

    def __init__(self) -> None:
        self.normal, self.defect, self.overlap = (np.zeros(BINS, np.int64) for _ in range(3))
        self.regions = 0

    def add(self, scores: np.ndarray, mask: np.ndarray) -> None:
        """Count one image.

        Args:
            scores: float (H, W), all within [0, 1].
            mask: bool (H, W), True = defect. All False for a good image.

        Raises:
            ValueError: the shapes differ, the mask is not bool, or a score is NaN or outside of [0, 1].
        """
        scores, mask = np.asarray(scores), np.asarray(mask)
        if scores.ndim != 2 or scores.dtype.kind != "f" or mask.shape != scores.shape or mask.dtype != bool:
            got = f"{scores.dtype} {scores.shape}, {mask.dtype} {mask.shape}"
            raise ValueError(f"need float scores (H, W) and a bool mask (H, W); got {got}")
        if not ((scores >= 0) & (scores <= 1)).all():  # also true for NaN
            raise ValueError(f"scores must lie in [0, 1]; got {scores.min()} to {scores.max()}")
        bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        self.normal += np.bincount(bins[~mask], minlength=BINS)
        self.defect += np.bincount(bins[mask], minlength=BINS)
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        self._add_regions(bins[mask], labels[mask] - 1, count - 1)

    def _add_regions(self, bins: np.ndarray, region: np.ndarray, count: int) -> None:
        """Add each region's histogram, divided by its area. bins, region: int (pixels,)."""
        order = np.argsort(region, kind="stable")
        ends = np.cumsum(np.bincount(region, minlength=count))
        for inside in np.split(bins[order], ends[:-1]) if count else ():
            above = np.cumsum(np.bincount(inside, minlength=BINS)[::-1], dtype=np.int64)
            self.overlap += np.diff(above * _ONE // len(inside), prepend=0)[::-1]
        self.regions += count

    def __add__(self, other: PixelHistogram) -> PixelHistogram:
        out = PixelHistogram()
        for name in ("normal", "defect", "overlap", "regions"):
            setattr(out, name, getattr(self, name) + getattr(other, name))
        return out

    def metrics(self) -> PixelMetrics:
        """Compute pixel AUROC, average precision and F1-max over all pixels; PRO up to a false-positive rate of 0.3."""
        auroc, ap, f1_max = curves.threshold_metrics(
            np.repeat([False, True], BINS), np.tile(np.arange(BINS), 2), np.concatenate([self.normal, self.defect])
        )
        overlap = self.overlap[::-1] / (_ONE * max(1, self.regions))
        return PixelMetrics(auroc, ap, curves.pro(overlap, self.normal[::-1], FPR_LIMIT), f1_max)
