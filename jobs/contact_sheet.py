"""A picture for people: the most anomalous images with their heatmaps, and some normal ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_TILE, _GAP, _TEXT = 180, 10, 34


@dataclass(frozen=True)
class Entry:
    """One image, its heatmap, and the two lines below them."""

    image: Image.Image
    heatmap: Image.Image
    lines: tuple[str, str]


def contact_sheet(sections: Sequence[tuple[str, Sequence[Entry]]], path: Path, *, per_row: int = 3) -> None:
    """Write the sections, each a title and its entries in rows of ``per_row``, to a PNG at ``path``."""
    cell_width, cell_height = 2 * _TILE + _GAP, _TILE + _TEXT
    rows = [(-(-len(entries) // per_row)) for _, entries in sections]
    width = per_row * cell_width + (per_row + 1) * 2 * _GAP
    height = sum(44 + count * (cell_height + _GAP) for count in rows) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for (title, entries), count in zip(sections, rows, strict=True):
        pen.text((2 * _GAP, top + 6), title, fill="black", font=ImageFont.load_default(20))
        top += 44
        for index, entry in enumerate(entries):
            left = 2 * _GAP + (index % per_row) * (cell_width + 2 * _GAP)
            _paste(sheet, pen, entry, left, top + (index // per_row) * (cell_height + _GAP))
        top += count * (cell_height + _GAP)
    sheet.save(path, optimize=True)


def _paste(sheet: Image.Image, pen: ImageDraw.ImageDraw, entry: Entry, left: int, top: int) -> None:
    for offset, picture in ((0, entry.image), (_TILE + _GAP, entry.heatmap)):
        sheet.paste(picture.convert("RGB").resize((_TILE, _TILE), Image.Resampling.LANCZOS), (left + offset, top))
    for row, line in enumerate(entry.lines):
        pen.text((left, top + _TILE + 3 + row * 15), line, fill="black", font=ImageFont.load_default(12))
