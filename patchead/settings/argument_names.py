"""What a YAML file calls the arguments of the functions that its settings end in.

A function's error names its own argument, in backquotes (`errors.argument`): it doesn't know where the value came from.
Whoever read the settings puts their keys in the place of these names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from patchead.errors import arguments_named, with_names

KEYS: Mapping[str, str] = {
    # archive
    "group_by": "archive.group_by",
    "max_pixels": "archive.max_pixels",
    "max_bytes": "archive.max_bytes",
    "bytes_in_flight": "archive.bytes_in_flight",
    "bit_depth": "archive.bit_depth",
    "max_image_seconds": "run.max_image_seconds",
    # encoders, and how an image becomes what they take
    "name": "encoder.name",
    "weights": "encoder.weights",
    "image_size": "encoder.image_size",
    "layers": "encoder.layers",
    "mode": "encoder.fit",
    "device": "encoder.device",
    "dtype": "encoder.dtype",
    # samples
    "ratio": "align.ratio",
    "min_inliers": "align.min_inliers",
    "max_scale": "align.max_scale",
    "threshold": "mask.threshold",
    "background": "mask.background",
    # scoring and plan
    "aggregate": "scoring.aggregate",
    "fraction": "scoring.fraction",
    "image_top_fraction": "scoring.image_top_fraction",
    "top_fraction": "scoring.image_top_fraction",
    "precision": "scoring.precision",
    "schedule": "scoring.schedule",
    "window": "scoring.window",
    "alpha": "scoring.alpha",
    "threshold_z": "scoring.threshold_z",
    "memory_bytes": "scoring.memory_gb",
    "max_group_size": "scoring.max_group_size",
    "max_references": "scoring.max_references",
    "size": "scoring.max_references",  # of the panel
    # naming
    "keywords": "naming.keywords",
}
"""The key of each argument that an error may name."""


def in_settings(text: str) -> str:
    """Put the keys of settings in the place of the arguments that a text names."""
    return with_names(text, KEYS)


@contextmanager
def named_as_settings() -> Iterator[None]:
    """Raise errors with the keys of settings in the place of arguments: around, or above, what works by settings."""
    with arguments_named(KEYS):
        yield
