"""Some images of the archive, decoded and drawn here with a stop-watch, stand for what a run does to all of them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pyarrow as pa

from patchead.archive.blocks import blocks_of
from patchead.archive.decode import decode, fit
from patchead.archive.reduced import decode_at_least
from patchead.archive.room import Room
from patchead.encoders import EncoderSpec
from patchead.errors import DecodeError
from patchead.lake.heatmaps import Format, save_picture
from patchead.maps.heatmap import heatmap, overlay
from patchead.maps.regions import image_regions
from patchead.nightly.decode import DecodeSettings, encoded
from patchead.nightly.units import PLACE
from patchead.search.alike import evenly

SAMPLED = 6
"""Images of the archive that are decoded, at most."""
_LEAST = 1e-6  # of a processor's seconds, where its clock is coarser than an image


@dataclass(frozen=True, kw_only=True)
class DecodingPace:
    """Hold what some images of an archive took on one core of this machine; medians."""

    images: int
    """That were read and decoded; 0: none could be."""
    seconds: float = 0.0
    """To decode one and make it the encoder's square."""
    explained: float = 0.0
    """To decode one, draw its heatmap and make a file of it."""
    megapixels: float = 0.0
    megabytes: float = 0.0
    """Of the file."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Say how heatmaps are drawn: the longer side in pixels, at most, and the file's format."""

    max_side: int
    format: Format


def decoding_pace(sample: pa.Table, settings: DecodeSettings, image_size: int, drawing: Drawing) -> DecodingPace:
    """Read, decode and draw images of an archive, one after the other, each timed without its reading.

    Args:
        sample: rows of the manifest with the columns `units.PLACE`.
        settings: how the run decodes.
        image_size: side in pixels of the encoder's images.
        drawing: of their heatmaps.
    """
    found, room = list[tuple[float, ...]](), Room()
    for row in sample.to_pylist():
        ((_, data),) = encoded({name: [row[name]] for name in PLACE}, settings)
        if not isinstance(data, bytes):
            continue  # the run counts it; here is nothing to time
        began = time.process_time()
        try:
            image = decode(data, max_pixels=settings.max_pixels, room=room)
        except DecodeError:
            continue
        blocks_of(image, data)
        fit(image, image_size, settings.fit)
        fitted = time.process_time()
        _draw(data, image.shape, settings, drawing)
        drawn = time.process_time() - fitted
        sizes = image.shape[0] * image.shape[1] / 1e6, len(data) / 1e6
        found.append((max(fitted - began, _LEAST), max(drawn, _LEAST), *sizes))
    if not found:
        return DecodingPace(images=0)
    seconds, explained, megapixels, megabytes = (statistics.median(column) for column in zip(*found, strict=True))
    return DecodingPace(
        images=len(found), seconds=seconds, explained=explained, megapixels=megapixels, megabytes=megabytes
    )


def _draw(data: bytes, shape: tuple[int, ...], settings: DecodeSettings, drawing: Drawing) -> None:
    """Decode an image and make a heatmap of scores that say nothing, as of one that is shown, and its regions."""
    scores = np.random.default_rng(0).random(settings.recipe.grid, np.float32)
    height, width = shape[:2]
    image_regions(scores, 0.9, width=width, height=height, fit=settings.fit, flagged=True)
    heat = heatmap(scores, width, height, max_side=drawing.max_side, fit=settings.fit)
    photo = decode_at_least(data, drawing.max_side, max_pixels=settings.max_pixels)
    save_picture(overlay(photo, heat, 0.0, 1.0), BytesIO(), drawing.format)


def encoder_key(spec: EncoderSpec) -> str:
    """Name what decides how long an encoder takes for an image, as `DeviceFigures.embed` does."""
    return f"{spec.name}, {spec.image_size} px, {spec.dtype}"


def evenly_sampled(manifest: pa.Table) -> pa.Table:
    """Take up to `SAMPLED` rows of a manifest, from its first to its last."""
    return manifest.select(PLACE).take(pa.array(evenly(np.arange(manifest.num_rows), SAMPLED, SAMPLED)))
