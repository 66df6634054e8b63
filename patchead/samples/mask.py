"""PatchEAD+'s foreground mask: where the encoder looks, a patch counts in full (method.md §5; PatchEAD §3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.errors import SettingsError, bad_argument


@dataclass(frozen=True)
class ForegroundMask:
    """Say how attention becomes weights. Raises `SettingsError` for a value that has no meaning.

    Examples:
        >>> import numpy as np
        >>> mask_weights(np.array([0.02, 0.4]), ForegroundMask(background=0.25)).tolist()
        [0.25, 1.0]
    """

    threshold: float = 0.05
    """Attention, min-max normalised per image, above which a patch is foreground."""
    background: float = 0.5
    """Weight of a patch that is not."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise SettingsError(bad_argument("threshold", self.threshold, "from 0 to 1"))
        if not 0 <= self.background <= 1:
            raise SettingsError(bad_argument("background", self.background, "from 0 to 1"))


def mask_weights(attention: np.ndarray, mask: ForegroundMask) -> np.ndarray:
    """Turn attention, in [0, 1], into float32 weights of its shape: 1 in the foreground, else the background's.

    They multiply the query's patch scores after matching; references are not masked.
    """
    return np.where(attention > mask.threshold, np.float32(1), np.float32(mask.background))
