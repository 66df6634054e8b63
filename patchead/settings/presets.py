"""Published settings by name: what ``preset`` puts beneath the settings that are given.

``patchead``: PatchEAD as in the paper (arXiv 2509.25856), as far as method.md §1, §3, §4 and §5 say it: the last layer,
448 px squashed, the 30 % nearest references, the mean of the largest 1 % of patch scores, neither alignment nor mask,
no search for repeated defects.
Few-shot mode is K = 1 whatever is set. PatchEAD+ is `align.enabled` and `mask.enabled` on top, with the paper's weights
of the mask; which datasets it aligns is method.md §5. The encoder stays the user's: the paper compares several.

``musc``: what comes nearest here to MuSc (arXiv 2401.16753; the authors' public settings): CLIP ViT-L/14-336 at 518 px,
blocks 6, 12, 18, 24 (the same quarters of another encoder), the 30 % nearest, the single maximum. Not reproduced: the
means over neighbourhoods of 1, 3 and 5 patches, matching each block alone and averaging the scores (here the blocks
are joined before matching), and the re-scoring of images by their nearest images.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

Preset = Literal["none", "patchead", "musc"]

_BATCH = {"scoring.aggregate": "nearest", "scoring.fraction": 0.3, "scoring.repeats": False}
_PLAIN = {"align.enabled": False, "mask.enabled": False}

#: By name of the preset: settings by dotted name.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "none": {},
        "patchead": {
            "encoder.image_size": 448,
            "encoder.layers": "last",
            "encoder.fit": "squash",
            **_BATCH,
            "scoring.image_top_fraction": 0.01,
            **_PLAIN,
            "mask.threshold": 0.05,
            "mask.background": 0.5,
        },
        "musc": {
            "encoder.name": "clip-l14-336",
            "encoder.image_size": 518,
            "encoder.layers": "quarters",
            "encoder.fit": "squash",
            **_BATCH,
            "scoring.image_top_fraction": 0.0,
            **_PLAIN,
        },
    }
)


def beneath(name: object, given: Mapping[str, Any]) -> dict[str, Any]:
    """Put a preset beneath settings: one that is given stays as it is.

    Args:
        name: of the preset; an unknown one adds nothing and is refused by the model.
        given: settings by section, as in a file; a section may be anything, which the model then checks.
    """
    merged = dict(given)
    for key, value in PRESETS.get(name, {}).items() if isinstance(name, str) else ():
        section, _, field = key.partition(".")
        inside = merged.get(section, {})
        if isinstance(inside, Mapping):
            merged[section] = {field: value, **inside}
    return merged
