"""What `patchead.score` gives: the scores of a list of images, their heatmaps and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from patchead.archive.given import DEFAULT_READING, ImageLike, Reading, pixels_of
from patchead.maps.heatmap import colour_range, heatmap, overlay
from patchead.maps.regions import Region, image_regions, region_threshold
from patchead.scoring.verdict import Verdict

_HEATMAP_SIDE = 1024


@dataclass(frozen=True)
class Scored:
    """Hold the scores of N images, in their order; `patchead.score` makes it.

    Examples:
        >>> import numpy as np, patchead
        >>> photos = list(np.random.default_rng(0).integers(90, 110, (5, 64, 64, 3), dtype=np.uint8))
        >>> scored = patchead.score(photos, encoder="timm/test_vit", weights="random", image_size=64)
        >>> scored.table.sort_by("rank")["rank"].to_pylist()
        [1, 2, 3, 4, 5]
        >>> scored.patch_scores.shape, len(scored.heatmaps())
        ((5, 4, 4), 5)
    """

    table: pa.Table
    """image_id, score, rank (1 = most anomalous), z, p_value (null where the rule has none), is_anomalous, max_patch,
    n_references, repeat_group (equal for images that share a region), aligned (null without alignment), width, height,
    status (ok, failed, too_few_images), error (why there is no score, else null)."""
    patch_scores: np.ndarray
    """float32 (N, h, w), in [0, 1]."""
    verdict: Verdict
    """On the images that have a score: its rule, centre, scale and thresholds (method.md §7)."""
    images: Sequence[ImageLike]
    fit: str
    reading: Reading = DEFAULT_READING
    """How the images were decoded: of 16-bit ones, the bits that all of them use."""

    def heatmap(self, index: int) -> np.ndarray:
        """Draw the photo with its patch scores over it: uint8 RGB (H, W, 3), at most 1,024 px, colours alike for all.

        Just the photo where it has no score: it cannot be compared, or has no reference.
        """
        image = pixels_of(self.images[index], index, self.reading)
        if not np.isfinite(self.patch_scores[index]).all():
            return image
        height, width = image.shape[:2]
        heat = heatmap(self.patch_scores[index], width, height, max_side=_HEATMAP_SIDE, fit=self.fit)
        return overlay(image, heat, *self._colour_range)

    @cached_property
    def _colour_range(self) -> tuple[float, float]:
        return colour_range(self.patch_scores)

    def regions(self, index: int) -> list[Region]:
        """Find the boxes in which an image is anomalous, as the nightly job does (method.md §6).

        The highest peak first, in pixels of the original. A flagged image has at least one; another has none where its
        map stays below what the flagged ones are measured by, or where it has no score.
        """
        if not np.isfinite(self.patch_scores[index]).all():
            return []
        width, height = self._sizes[index]
        return image_regions(
            self.patch_scores[index],
            self._region_threshold,
            width=width,
            height=height,
            fit=self.fit,
            flagged=bool(self.table["is_anomalous"][index].as_py()),
        )

    @cached_property
    def _region_threshold(self) -> float:
        good = np.array([flag is False for flag in self.table["is_anomalous"].to_pylist()])  # None without a score
        score = self.verdict.threshold_score
        return region_threshold(self.patch_scores, self._sizes, good, fit=self.fit, threshold_score=score)

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        return list(zip(self.table["width"].to_pylist(), self.table["height"].to_pylist(), strict=True))

    def heatmaps(self) -> list[np.ndarray]:
        """Draw `heatmap` of every image."""
        return [self.heatmap(index) for index in range(len(self.images))]
