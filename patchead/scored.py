"""What `patchead.score` gives: the scores of a list of images, their heatmaps and regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from patchead.archive.given import DEFAULT_READING, ImageLike, Reading, pixels_of
from patchead.maps.heatmap import colour_range, heatmap, overlay
from patchead.maps.regions import Region, image_regions, peaks_of, threshold_of_peaks
from patchead.maps.shown import to_search
from patchead.scoring.verdict import Verdict

_HEATMAP_SIDE = 1024
_GAP, _CAPTION = 4, 16  # pixels between the pictures of `Scored.show`, and of the line above them
_NO_PHOTO = 240  # pixels, of the square that stands for an image that cannot be decoded
TOP = 20
"""Images of the highest scores that are shown, flagged or not: the default of explain.top."""


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
    n_references, repeat_group (equal for images that share a region, else null), aligned (null without alignment),
    width, height, status (ok, failed, too_few_images), error (why there is no score, else null)."""
    maps: np.ndarray
    """float32 (N, h, w), what is known of `patch_scores`: upper bounds in part of the images that are not ``exact``."""
    verdict: Verdict
    """On the images that have a score: its rule, centre, scale and thresholds (method.md §7)."""
    images: Sequence[ImageLike]
    fit: str
    reading: Reading = DEFAULT_READING
    """How the images were decoded: of 16-bit ones, the bits that all of them use."""
    exact: np.ndarray | None = None
    """bool (N,), after bound and refine: images whose patches were all searched by now. Those that `heatmap`, `regions`
    and `patch_scores` need are searched when they are asked for. None: all."""
    searched_by: str = "full"
    """How patches were searched, and why so: full, window or projection (where bounds came from), window rule."""
    search: Callable[[np.ndarray], np.ndarray] | None = None
    """Searches the patches of images by their places, see `SampleScores.search`."""
    patch_threshold: float | None = None
    """What patch scores exceed in a region; None: found from images that are not flagged (method.md §6)."""

    @property
    def patch_scores(self) -> np.ndarray:
        """Give the scores of all patches, float32 (N, h, w), in [0, 1]; NaN where an image has none.

        What bound and refine has left out is searched at the first call, which takes as long as the full search.
        """
        self._settle(np.arange(len(self.maps)))
        return self.maps

    def heatmap(self, index: int) -> np.ndarray:
        """Draw the photo with its patch scores over it: uint8 RGB (H, W, 3), at most 1,024 px, colours alike for all.

        Just the photo where it has no score: it cannot be compared, or has no reference. A grey square where it cannot
        be decoded.
        """
        if self._sizes[index][0] is None:
            return np.full((_NO_PHOTO, _NO_PHOTO, 3), 128, np.uint8)
        image = pixels_of(self.images[index], index, self.reading)
        if not np.isfinite(self.maps[index]).all():
            return image
        colours = self._colour_range
        self._settle(np.array([index]))
        height, width = image.shape[:2]
        heat = heatmap(self.maps[index], width, height, max_side=_HEATMAP_SIDE, fit=self.fit)
        return overlay(image, heat, *colours)

    @cached_property
    def _colour_range(self) -> tuple[float, float]:
        flags, ranks = self.table["is_anomalous"].to_pylist(), self.table["rank"].to_pylist()
        shown = np.array([rank is not None and (flag or rank <= TOP) for flag, rank in zip(flags, ranks, strict=True)])
        self._settle(np.flatnonzero(shown))
        return colour_range(self.maps, shown, self._region_threshold)

    def _settle(self, places: np.ndarray) -> None:
        """Put the scores of the full search in the place of bounds of the images at ``places``."""
        if self.exact is None or self.search is None:
            return
        missing = places[~self.exact[places]]
        if len(missing):
            self.maps[missing], self.exact[missing] = self.search(missing), True

    def regions(self, index: int) -> list[Region]:
        """Find the boxes in which an image is anomalous, as the nightly job does (method.md §6).

        The highest peak first, in pixels of the original. A flagged image has at least one; another has none where its
        map stays below what the flagged ones are measured by, or where it has no score.
        """
        if not np.isfinite(self.maps[index]).all():
            return []
        width, height = self._sizes[index]
        threshold = self._region_threshold
        self._settle(np.array([index]))
        return image_regions(
            self.maps[index],
            threshold,
            width=width,
            height=height,
            fit=self.fit,
            flagged=bool(self.table["is_anomalous"][index].as_py()),
        )

    @cached_property
    def _region_threshold(self) -> float:
        if self.patch_threshold is not None:
            return self.patch_threshold
        good = np.array([flag is False for flag in self.table["is_anomalous"].to_pylist()])  # None without a score
        while True:
            peaks = peaks_of(self.maps, self._sizes, good, self.fit)
            exact = np.ones(len(good), bool) if self.exact is None else self.exact
            wanted = to_search(exact, np.zeros(len(good), bool), peaks)
            if not wanted.any():
                return threshold_of_peaks(peaks[good], self.verdict.normal_score)
            self._settle(np.flatnonzero(wanted))

    @cached_property
    def _sizes(self) -> list[tuple[Any, Any]]:
        return list(zip(self.table["width"].to_pylist(), self.table["height"].to_pylist(), strict=True))

    def show(self, count: int = 6, *, height: int = 240) -> Image.Image:
        """Draw the highest scores side by side, the photo above its heatmap: an image that a notebook shows.

        Args:
            count: images, at most; the highest score on the left.
            height: of each picture in pixels.
        """
        ranks = self.table["rank"].to_pylist()
        places = sorted((place for place, rank in enumerate(ranks) if rank is not None), key=lambda at: (ranks[at], at))
        columns = []
        for place in places[:count]:
            photo = Image.fromarray(pixels_of(self.images[place], place, self.reading))
            size = (max(1, round(photo.width * height / photo.height)), height)
            columns.append([photo.resize(size), Image.fromarray(self.heatmap(place)).resize(size)])
        width = sum(photo.width + _GAP for photo, _ in columns)
        sheet = Image.new("RGB", (max(1, width - _GAP), 2 * height + _GAP + _CAPTION), "white")
        draw, left = ImageDraw.Draw(sheet), 0
        for (photo, heat), place in zip(columns, places, strict=False):
            flag = " flagged" if self.table["is_anomalous"][place].as_py() else ""
            draw.text((left + 2, 2), f"{ranks[place]}: z {self.table['z'][place].as_py():.1f}{flag}", fill="black")
            sheet.paste(photo, (left, _CAPTION))
            sheet.paste(heat, (left, _CAPTION + height + _GAP))
            left += photo.width + _GAP
        return sheet

    def heatmaps(self) -> list[np.ndarray]:
        """Draw `heatmap` of every image."""
        self._settle(np.arange(len(self.images)))
        return [self.heatmap(index) for index in range(len(self.images))]
