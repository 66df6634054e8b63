"""Heatmap files and regions of the images of one group, with one colour range for the group (method.md §6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from patchead.archive.decode import decode
from patchead.errors import ArchiveError, DecodeError
from patchead.lake.heatmaps import heatmap_uri, write_image
from patchead.maps.heatmap import colour_range, heatmap, overlay
from patchead.maps.regions import find_regions
from patchead.nightly.decode import PLACE, DecodeSettings, encoded
from patchead.schema import REGIONS, table


@dataclass(frozen=True)
class DrawSettings:
    """Where heatmaps go and how they look."""

    run_id: str
    lake_uri: str
    format: Literal["png", "webp"]
    max_side: int
    decode: DecodeSettings


@dataclass(frozen=True)
class Pictures:
    """Heatmap URI and note per image of the group, null where none; the regions of the explained images."""

    uris: list[str | None]
    notes: list[str | None]
    regions: pa.Table


def draw(
    rows: pa.Table,
    patches: np.ndarray,
    explained: np.ndarray,
    drawn: np.ndarray,
    threshold: float,
    settings: DrawSettings,
) -> Pictures:
    """Regions of the ``explained`` images, heatmap files of the ``drawn`` ones among them.

    Args:
        rows: manifest and receipt columns of the group's N images.
        patches: patch scores, float32 (N, h, w).
        explained, drawn: bool (N,).
        threshold: patch score above which a pixel belongs to a region.
    """
    uris: list[str | None] = [None] * len(drawn)
    notes: list[str | None] = [None] * len(drawn)
    regions: list[dict[str, Any]] = []
    if not explained.any():
        return Pictures(uris, notes, REGIONS.empty_table())
    shown = colour_range(patches, threshold)
    for index, row, data in _originals(rows, explained, drawn, settings.decode):
        heat = heatmap(patches[index], row["width"], row["height"], max_side=settings.max_side, fit=settings.decode.fit)
        regions += _region_rows(row, heat, threshold, settings.run_id)
        if data is None:
            continue
        try:
            uris[index] = _write(row, data, heat, shown, settings)
        except (ArchiveError, DecodeError) as exc:
            notes[index] = f"scored, but its heatmap could not be drawn: {exc}"
    return Pictures(uris, notes, table(regions, REGIONS))


def _originals(
    rows: pa.Table, explained: np.ndarray, drawn: np.ndarray, settings: DecodeSettings
) -> Iterator[tuple[int, dict[str, Any], bytes | ArchiveError | None]]:
    """Every explained image with its encoded bytes; None for one that gets no heatmap and so is not read."""
    wanted = rows.append_column("index", pa.array(range(rows.num_rows))).filter(pa.array(explained))
    unread = wanted.filter(pa.array(~drawn[explained]))
    yield from ((row["index"], row, None) for row in unread.to_pylist())
    read = wanted.filter(pa.array(drawn[explained])).sort_by([("format", "ascending"), ("uri", "ascending")])
    for _, part in groupby(read.to_pylist(), key=lambda r: (r["format"], r["uri"] if r["key"] else "")):
        images = list(part)
        data = encoded({name: [row[name] for row in images] for name in PLACE}, settings)
        yield from ((images[place]["index"], images[place], found) for place, found in data)


def _region_rows(row: dict[str, Any], heat: np.ndarray, threshold: float, run_id: str) -> list[dict[str, Any]]:
    found = find_regions(heat, threshold, width=row["width"], height=row["height"])
    known = {"run_id": run_id, **{name: row[name] for name in ("image_id", "night", "product", "group_id")}}
    return [known | {"region": number} | asdict(region) for number, region in enumerate(found, start=1)]


def _write(
    row: dict[str, Any],
    data: bytes | ArchiveError,
    heat: np.ndarray,
    shown: tuple[float, float],
    settings: DrawSettings,
) -> str:
    if isinstance(data, ArchiveError):
        raise data
    image = decode(data, max_pixels=settings.decode.max_pixels, bit_depth=settings.decode.bit_depth)
    uri = heatmap_uri(
        settings.lake_uri, row["night"], row["product"], settings.run_id, row["image_id"], settings.format
    )
    write_image(uri, settings.decode.storage, overlay(image, heat, *shown), settings.format)
    return uri
