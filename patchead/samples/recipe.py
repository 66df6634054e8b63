"""From an image to a sample: the views of it that the encoder gets. Without torch: decoding starts in no time.

The nightly job and `patchead.local` share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from patchead.archive.decode import fit
from patchead.samples.align import Alignment
from patchead.samples.views import TEMPLATE_VIEWS, Frame, Guide, Views, prompt_views, template_views


@dataclass(frozen=True)
class SampleRecipe:
    """Describe how an image becomes a sample.

    Without ``align`` it is one view. With it, guides are the group's template, or in ``few_shot`` mode its prompts.
    """

    image_size: int
    fit: str
    grid: tuple[int, int]
    align: Alignment | None = None
    few_shot: bool = False

    @property
    def stored_views(self) -> int:
        """Count the views that are stored of one sample: V."""
        return TEMPLATE_VIEWS if self.align is not None and not self.few_shot else 1

    @property
    def frame(self) -> Frame:
        """Give the square that every view is fitted into."""
        return Frame(partial(fit, size=self.image_size, mode=self.fit), self.fit, self.grid)

    def views(self, image: np.ndarray, guides: Sequence[Guide | None]) -> Views:
        """Make the views of an image, uint8 RGB (H, W, 3); a guide that is None may not be compared with it."""
        if self.align is None:
            p = self.grid[0] * self.grid[1]
            return Views(self.frame.fit(image)[None], np.ones((1, p), bool), np.eye(2, 3, dtype=np.float32)[None])
        if self.few_shot:
            return prompt_views(image, guides, self.align, self.frame)
        return template_views(image, next(iter(guides), None), self.align, self.frame)


def turned(image: np.ndarray, degrees: int) -> np.ndarray:
    """Turn the image (H, W, 3) clockwise by 0, 90, 180 or 270 degrees."""
    return np.ascontiguousarray(np.rot90(image, -degrees // 90)) if degrees else image


def stacked(views: Iterable[Views]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Stack the views of n samples: pixels (M, S, S, 3), valid (n, V, P), motions (n, V, 2, 3) and blocks (n, B)."""
    every = list(views)
    pixels = np.concatenate([view.pixels for view in every])
    valid, motions, blocks = (np.stack([getattr(v, name) for v in every]) for name in ("valid", "motions", "blocks"))
    return pixels, valid, motions, blocks
