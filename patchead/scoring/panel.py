"""The panel: a few images of a large group that serve as everybody's references (method.md §9.3)."""

from __future__ import annotations

import numpy as np

from patchead.errors import SettingsError, bad_argument
from patchead.hashing import text_digest


def reference_panel(image_ids: list[str], size: int, seed: int) -> np.ndarray:
    """Draw the ``size`` images that are everybody's references: ascending positions, int64 (method.md §9.3).

    The draw is by a hash of seed and image id: the same images whatever the order of the list, and mostly the same ones
    when images come or go. All positions where the group is not larger than ``size``.

    Raises:
        SettingsError: size below 1.
    """
    if size < 1:
        raise SettingsError(bad_argument("size", size, "at least 1"))
    draws = [text_digest(f"{seed}:{image_id}") for image_id in image_ids]
    return np.sort(np.array(sorted(range(len(draws)), key=draws.__getitem__)[:size], np.int64))
