"""Which images a set of prompts is judged by: the prompts themselves, or views of one or two (method.md §7.3).

Without torch: decoding starts in no time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.errors import SettingsError, bad_argument
from patchead.scoring.aggregate import count_references

ENOUGH = 3
"""Different prompts whose leave-one-out scores say how much normal images differ. Two have one distance, not two."""

TOO_FEW = f"fewer than {ENOUGH} prompts that differ"
"""Why a group is searched fully where a window auto was asked for (`verdicts.search`)."""

_SHARES = (0.85, 0.9)  # of each side; views that keep more score too low against their own prompt
_CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
_VIEWS = [(share, corner) for share in _SHARES for corner in _CORNERS]
STAND_INS = len(_VIEWS)
"""Views of each prompt where there are fewer."""


def stand_in(image: np.ndarray, number: int) -> np.ndarray:
    """Cut view ``number`` of an image, uint8 RGB (H, W, 3): 85 or 90 % of each side, at one of its corners.

    Moved and enlarged, it is about as far from its prompt as another normal image is.
    """
    share, (right, down) = _VIEWS[number]
    height, width = image.shape[:2]
    h, w = (max(1, round(share * side)) for side in (height, width))
    top, left = round((height - h) * down), round((width - w) * right)
    return np.ascontiguousarray(image[top : top + h, left : left + w])


@dataclass(frozen=True)
class NullChoice:
    """Say what is scored to know how normal images score: the prompts at ``places``, or `STAND_INS` views of each."""

    places: np.ndarray
    """int (n,), ascending; each content once."""
    views_of: int
    """0: the prompts themselves, each against the others. 2: their views, against the other prompt. 1: their views,
    against the prompts that they are of, as there is none that they may be compared with."""

    @classmethod
    def of(cls, content: np.ndarray, part: np.ndarray) -> NullChoice:
        """Choose by content and part of the upright prompts, int64 (k,); see `scoring.aggregate.reference_mask`.

        Examples:
            >>> NullChoice.of(np.array([0, 1, 1, 2]), np.full(4, -1))
            NullChoice(places=array([0, 1, 3]), views_of=0)
            >>> NullChoice.of(np.array([0, 0]), np.full(2, -1)).views_of
            1
        """
        first = np.sort(np.unique(content, return_index=True)[1])
        comparable = first[count_references(content[first], part[first]) > 0]
        if len(comparable) >= ENOUGH:
            return cls(comparable, 0)
        return cls(comparable, 2) if len(comparable) else cls(first, 1)


def refuse_window(window: int | str | None, prompts: int) -> None:
    """Refuse a window that was asked for with so few prompts that views of them stand in for more.

    Views are moved by several cells: they score far above normal images within it, so that nothing is flagged. A window
    auto is none there: see `TOO_FEW`.

    Args:
        window: see `Aggregation.window`.
        prompts: how many there are that differ; 0: no prompts, or enough of them.

    Raises:
        SettingsError: it is a number of cells, and there are one or two.
    """
    if window is None or window == "auto" or not 0 < prompts < ENOUGH:
        return
    remedy = (
        "Moved views of them stand in for more, and score so high within a window that nothing would be flagged. Give "
        f"{ENOUGH} different normal images or more, or set it to off or auto."
    )
    raise SettingsError(bad_argument("window", window, f"off or auto with {TOO_FEW}", remedy))
