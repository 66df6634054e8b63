"""Does decoding feed the encoder? Some images of the archive decoded here with a stop-watch, beside its pace."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import pyarrow as pa

from patchead.archive.blocks import blocks_of
from patchead.archive.decode import decode, fit
from patchead.encoders import EncoderSpec
from patchead.errors import DecodeError
from patchead.nightly.decode import DecodeSettings, encoded
from patchead.nightly.units import PLACE
from patchead.search.bound_choice import evenly

SAMPLED = 6
"""Images of the archive that are decoded, at most."""


@dataclass(frozen=True, kw_only=True)
class DecodingPace:
    """Hold what some images of an archive took on one core of this machine; medians."""

    images: int
    """That were read and decoded; 0: none could be, and the rest is 0."""
    seconds: float = 0.0
    """To decode one and make it the encoder's square."""
    megapixels: float = 0.0
    megabytes: float = 0.0
    """Of the file."""


def decoding_pace(sample: pa.Table, settings: DecodeSettings, image_size: int) -> DecodingPace:
    """Read and decode images of an archive, one after the other, each timed without its reading.

    Args:
        sample: rows of the manifest with the columns `units.PLACE`.
        settings: how the run decodes.
        image_size: side in pixels of the encoder's images.
    """
    seconds, megapixels, megabytes = list[float](), list[float](), list[float]()
    for row in sample.to_pylist():
        ((_, data),) = encoded({name: [row[name]] for name in PLACE}, settings)
        if not isinstance(data, bytes):
            continue  # the run counts it; here is nothing to time
        began = time.process_time()
        try:
            image = decode(data, max_pixels=settings.max_pixels)
        except DecodeError:
            continue
        blocks_of(image, data)
        fit(image, image_size, settings.fit)
        seconds.append(time.process_time() - began)
        megapixels.append(image.shape[0] * image.shape[1] / 1e6)
        megabytes.append(len(data) / 1e6)
    if not seconds:
        return DecodingPace(images=0)
    return DecodingPace(
        images=len(seconds),
        seconds=statistics.median(seconds),
        megapixels=statistics.median(megapixels),
        megabytes=statistics.median(megabytes),
    )


def encoder_key(spec: EncoderSpec) -> str:
    """Name what decides how long an encoder takes for an image, as `DeviceFigures.embed` does."""
    return f"{spec.name}, {spec.image_size} px, {spec.dtype}"


def feed_lines(images: int, pace: DecodingPace, spec: EncoderSpec, embed: Mapping[str, float]) -> list[str]:
    """Say what reading, decoding and embedding an archive takes, and how many CPUs keep one encoder busy.

    Args:
        images: readable ones of the archive.
        pace: of some of them.
        spec: of the run's encoder.
        embed: images per second of one actor by `encoder_key`, as calibrated.
    """
    if not pace.images:
        return ["decode   no estimate: none of the images that were tried could be read and decoded"]
    lines = [
        f"decode   {images * pace.seconds:.3g} CPU seconds and {images * pace.megabytes / 1e3:.3g} GB to read: "
        f"{1 / pace.seconds:.3g} images/s per CPU core, measured here on {pace.images} of the images "
        f"({pace.megapixels:.3g} megapixels, {pace.megabytes:.3g} MB)"
    ]
    rate = embed.get(encoder_key(spec))
    if rate is None:
        remedy = f"run `patchead calibrate --embed` for {encoder_key(spec)}"
        return [*lines, f"embed    no estimate: {remedy}"]
    cores = max(1, ceil(rate * pace.seconds))
    return [
        *lines,
        f"embed    {images / rate:.3g} actor seconds: {rate:.3g} images/s per actor, as calibrated; "
        f"{cores} CPU {'core keeps' if cores == 1 else 'cores keep'} an actor busy, with fewer it waits for images",
    ]


def evenly_sampled(manifest: pa.Table) -> pa.Table:
    """Take up to `SAMPLED` rows of a manifest, from its first to its last."""
    return manifest.select(PLACE).take(pa.array(evenly(np.arange(manifest.num_rows), SAMPLED, SAMPLED)))
