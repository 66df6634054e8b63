"""The pictures of a page: thumbnails of all its images, larger ones and heatmaps of the worst, patches cut out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from patchead.archive.listing import formats_of
from patchead.archive.readers import AT_ONCE, read_files, read_images
from patchead.archive.reduced import decode_reduced, shrunk
from patchead.batches import batches, concurrently
from patchead.errors import ArchiveError, DecodeError, LakeError
from patchead.files import Folder
from patchead.hashing import text_digest
from patchead.storage import Storage, explained

THUMBNAIL, PICTURE, CUTOUT = 208, 1024, 160
"""Longer sides, in pixels, of what is written."""
_QUALITY = {"thumbnails": 70, "pictures": 82, "heatmaps": 82, "patches": 82}
_AROUND = 3  # patches to each side of the one that a cutout shows
_LEAST_CUT = 16  # pixels to each side of a region's middle that are shown, at least
_CONTEXT_SIDE = 2048  # of the original that cutouts are made of


@dataclass(frozen=True)
class Reading:
    """Say how a run read its archive."""

    storage: Storage
    image_column: str
    id_column: str | None
    max_pixels: int
    fit: str
    bit_depth: Literal["auto"] | int
    """Of 16-bit images, where the night has not found one for their group."""
    found_depth: Mapping[str, int]
    """By group id: what the night has found."""


@dataclass(frozen=True)
class Wanted:
    """Name what is written of one image; ``row`` is its row of `latest`."""

    row: Mapping[str, Any]
    picture: bool


@dataclass(frozen=True)
class Cutout:
    """Name one patch that is cut out of an image: ``place`` is its row and column in ``grid``."""

    row: Mapping[str, Any]
    place: tuple[int, int]
    grid: tuple[int, int]

    @property
    def name(self) -> str:
        """Name its file."""
        return f"patches/{text_digest(self.row['image_id'])}-{self.place[0]}-{self.place[1]}.webp"

    def of(self, image: np.ndarray, fit: str) -> np.ndarray:
        """Cut it out, see `cut`."""
        return cut(image, self.place, self.grid, fit)


@dataclass(frozen=True)
class BoxCutout:
    """Name one region that is cut out of an image: ``box`` is x, y, width and height in original pixels."""

    row: Mapping[str, Any]
    region: int
    box: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name its file."""
        return f"patches/{text_digest(self.row['image_id'])}-region-{self.region}.webp"

    def of(self, image: np.ndarray, fit: str) -> np.ndarray:
        """Cut it out with as much again around it, and a frame around the region."""
        scale = image.shape[1] / self.row["width"]
        x, y, width, height = (value * scale for value in self.box)
        half = max(width, height, _LEAST_CUT)
        return _framed(image, (x + width / 2, y + height / 2), (half, half), (width / 2, height / 2))


def name_of(kind: str, image_id: str) -> str:
    """Name the file of one picture: no letter of it comes from the image's own name."""
    return f"{kind}/{text_digest(image_id)}.webp"


def write_pictures(wanted: Sequence[Wanted], reading: Reading, out: Folder) -> Iterator[tuple[str, str | None]]:
    """Write thumbnails, and pictures where asked; yield each image's id and why it has none, or None.

    Raises:
        LakeError: a file cannot be written.
    """

    def write(part: list[Wanted]) -> list[tuple[str, str | None]]:
        return [_written(part[place], data, reading, out) for place, data in _originals(part, reading)]

    for part in concurrently(write, _portions(wanted), at_once=_threads()):
        yield from part


def write_heatmaps(rows: Sequence[Mapping[str, Any]], storage: Storage, out: Folder) -> set[str]:
    """Copy the heatmaps of some images, smaller; return the ids of those whose file is still there.

    Raises:
        LakeError: a file cannot be written.
    """

    def copy(row: Mapping[str, Any]) -> str | None:
        try:
            with explained("read", row["heatmap_uri"], ArchiveError):
                filesystem, path = storage.filesystem(row["heatmap_uri"])
                picture = Image.open(BytesIO(filesystem.cat_file(path))).convert("RGB")
        except ArchiveError:
            return None
        _save(out, name_of("heatmaps", row["image_id"]), shrunk(np.asarray(picture), PICTURE))
        return str(row["image_id"])

    found = concurrently(copy, [row for row in rows if row["heatmap_uri"]], at_once=_threads())
    return {image_id for image_id in found if image_id is not None}


def write_cutouts(cutouts: Sequence[Cutout | BoxCutout], reading: Reading, out: Folder) -> set[str]:
    """Cut patches out of their originals, with what is around them; return the names of the files written.

    Raises:
        LakeError: a file cannot be written.
    """
    by_image: dict[str, list[Cutout | BoxCutout]] = {}
    for cutout in cutouts:
        by_image.setdefault(cutout.row["image_id"], []).append(cutout)
    wanted = [Wanted(of_image[0].row, picture=False) for of_image in by_image.values()]

    def write(part: list[Wanted]) -> list[str]:
        written = []
        for place, data in _originals(part, reading):
            pixels = _decoded(part[place].row, data, reading, _CONTEXT_SIDE)
            if isinstance(pixels, np.ndarray):
                for cutout in by_image[part[place].row["image_id"]]:
                    _save(out, cutout.name, cutout.of(pixels, reading.fit))
                    written.append(cutout.name)
        return written

    return {name for names in concurrently(write, _portions(wanted), at_once=_threads()) for name in names}


def cut(image: np.ndarray, place: tuple[int, int], grid: tuple[int, int], fit: str) -> np.ndarray:
    """Cut one patch and what is around it out of RGB uint8 (H, W, 3); a frame is drawn around the patch itself.

    Args:
        image: upright.
        place, grid: row and column of the patch, and how many there are.
        fit: how the image became the square that was embedded: squash, crop or pad.
    """
    height, width = image.shape[:2]
    square = {"squash": (width, height), "crop": (min(width, height),) * 2, "pad": (max(width, height),) * 2}[fit]
    left, top = (width - square[0]) / 2, (height - square[1]) / 2
    cell = square[0] / grid[1], square[1] / grid[0]
    centre = left + (place[1] + 0.5) * cell[0], top + (place[0] + 0.5) * cell[1]
    reach = (_AROUND + 0.5) * cell[0], (_AROUND + 0.5) * cell[1]
    return _framed(image, centre, reach, (cell[0] / 2, cell[1] / 2))


def _framed(
    image: np.ndarray, centre: tuple[float, float], reach: tuple[float, float], half: tuple[float, float]
) -> np.ndarray:
    """What is around a place, its frame ``half`` as wide and high to each side; x before y."""
    # Out of the picture it is grey, so that the place is in the middle wherever it lies.
    box = [round(at) for at in (centre[0] - reach[0], centre[1] - reach[1], centre[0] + reach[0], centre[1] + reach[1])]
    size = max(1, box[2] - box[0]), max(1, box[3] - box[1])
    shown = Image.new("RGB", size, (128, 128, 128))
    shown.paste(Image.fromarray(image), (-box[0], -box[1]))
    scale = CUTOUT / max(size)
    shown = shown.resize((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), Image.Resampling.BICUBIC)
    pixels = np.array(shown)
    x, y = pixels.shape[1] / 2, pixels.shape[0] / 2
    across, down = half[0] * scale, half[1] * scale
    _frame(pixels, round(x - across), round(y - down), round(x + across), round(y + down))
    return pixels


def _frame(pixels: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    for out, colour in ((2, (0, 0, 0)), (1, (255, 255, 255))):
        x0, y0, x1, y1 = left - out, top - out, right + out, bottom + out
        pixels[max(0, y0), max(0, x0) : x1] = colour
        pixels[min(len(pixels), y1) - 1, max(0, x0) : x1] = colour
        pixels[max(0, y0) : y1, max(0, x0)] = colour
        pixels[max(0, y0) : y1, min(pixels.shape[1], x1) - 1] = colour


def _threads() -> int:
    return min(8, len(os.sched_getaffinity(0)) + 1)


def _portions(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Loose files some at a time; the images of one shard together, as it is read in one pass."""
    shards: dict[str, list[Wanted]] = {}
    for each in wanted:
        shards.setdefault(each.row["uri"] if each.row["member"] else "", []).append(each)
    yield from batches(shards.pop("", []), AT_ONCE)
    yield from shards.values()


def _originals(part: Sequence[Wanted], reading: Reading) -> Iterator[tuple[int, bytes | ArchiveError]]:
    uri = part[0].row["uri"]
    if part[0].row["member"] is None:
        yield from read_files([each.row["uri"] for each in part], reading.storage)
        return
    format = formats_of(pa.array([uri]))[0].as_py() or "files"
    keys = [each.row["member"] for each in part]
    column, ids = reading.image_column, reading.id_column
    yield from read_images(uri, format, keys, storage=reading.storage, image_column=column, id_column=ids)


def _written(wanted: Wanted, data: bytes | ArchiveError, reading: Reading, out: Folder) -> tuple[str, str | None]:
    image_id = wanted.row["image_id"]
    pixels = _decoded(wanted.row, data, reading, PICTURE if wanted.picture else THUMBNAIL)
    if isinstance(pixels, str):
        return image_id, pixels
    if wanted.picture:
        _save(out, name_of("pictures", image_id), pixels)
    _save(out, name_of("thumbnails", image_id), shrunk(pixels, THUMBNAIL))
    return image_id, None


def _decoded(row: Mapping[str, Any], data: bytes | ArchiveError, reading: Reading, side: int) -> np.ndarray | str:
    if isinstance(data, ArchiveError):
        return str(data)
    try:
        depth = reading.found_depth.get(row["group_id"], reading.bit_depth)
        return decode_reduced(data, side, max_pixels=reading.max_pixels, bit_depth=depth)
    except DecodeError as exc:
        return str(exc)


def _save(out: Folder, name: str, pixels: np.ndarray) -> None:
    """Unlike the lake's own files, not forced to the disk one by one: thousands of them can be made again."""
    sink = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(sink, "WEBP", quality=_QUALITY[name.partition("/")[0]], method=2)
    filesystem, path = out.storage.filesystem(out.uri_of(name))
    with explained("write", out.uri_of(name), LakeError):
        if isinstance(filesystem, LocalFileSystem):
            filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(path, sink.getvalue())
