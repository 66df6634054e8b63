"""What the registered encoders take for one image, and which to try: for `patchead encoders`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from patchead.encoders.registry import table

DEFAULT = "dinov2-small"

GFLOP: Mapping[str, float] = MappingProxyType(
    {
        "dinov2-small": 63.4,
        "dinov2-base": 213.8,
        "dinov2-large": 723.6,
        "dinov2-giant": 2581.6,
        "dinov2-small-reg": 63.7,
        "dinov2-base-reg": 214.8,
        "dinov2-large-reg": 726.8,
        "dinov2-giant-reg": 2592.7,
        "dinov3-small": 45.4,
        "dinov3-base": 157.9,
        "dinov3-large": 539.0,
        "dinov3-convnext-tiny": 35.6,
        "dinov3-convnext-small": 69.5,
        "dinov3-convnext-base": 122.8,
        "dinov3-convnext-large": 274.9,
        "clip-b16-plus-240": 209.1,
        "clip-l14-336": 723.6,
        "eva02-small": 63.4,
        "eva02-base": 213.8,
        "eva02-large": 723.5,
        "mae-base": 157.0,
        "mae-large": 535.9,
        "mae-huge": 1463.4,
        "beitv2-base": 157.0,
        "beitv2-large": 535.9,
        "pe-spatial-tiny": 14.2,
        "pe-spatial-small": 45.2,
        "pe-spatial-base": 157.0,
        "pe-spatial-large": 723.6,
        "pe-spatial-giant": 4108.9,
        "tf-efficientnet-lite0": 3.1,
        "wide-resnet50": 91.2,
    }
)
"""10^9 operations of a forward pass over one image of 448 px, counted by torch (tests/encoders/test_advice.py)."""

_CLASSES = (("fastest", 0.3), ("fast", 1.5), ("medium", 5.0), ("slow", 15.0), ("slowest", float("inf")))
"""Name and greatest work, in times that of the default."""

ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "dinov2-small": "first; measured",
        "dinov2-base": "then this",
        "dinov2-large": "then this, on a GPU",
        "tf-efficientnet-lite0": "least; measured",
        "clip-l14-336": "preset musc",
        "dinov2-small-reg": "stray spots in maps",
        "mae-base": "research only",
        "mae-large": "research only",
        "mae-huge": "research only",
    }
)
"""Which to try; figures: docs/choosing.md."""


def work(name: str) -> float:
    """Give what a registered encoder takes for an image of 448 px, in times the default's operations."""
    return GFLOP[name] / GFLOP[DEFAULT]


def speed(name: str) -> str:
    """Give the class of a registered encoder's `work`: fastest, fast (as the default), medium, slow or slowest."""
    return next(label for label, most in _CLASSES if work(name) <= most)


def advised_table() -> list[dict[str, Any]]:
    """List `registry.table` with each encoder's speed, work and advice."""
    return [
        {**row, "speed": speed(row["name"]), "work": round(work(row["name"]), 2), "advice": ADVICE.get(row["name"], "")}
        for row in table()
    ]
