"""Stage 2: the encoded images of one unit become one block of pixels and one receipt each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from patchead.archive.decode import decode
from patchead.archive.readers import read_files, read_images, read_ranges
from patchead.errors import ArchiveError, DecodeError
from patchead.hashing import content_hash
from patchead.lake.contents import Contents
from patchead.nightly.prompt_nulls import view_number
from patchead.nightly.units import PLACE
from patchead.samples.recipe import SampleRecipe, stacked, turned
from patchead.samples.stand_ins import stand_in
from patchead.samples.views import Guide, Views
from patchead.schema import FAILED, OK, RECEIPTS, SAMPLE_KEY, table
from patchead.settings.argument_names import in_settings
from patchead.storage import Storage


@dataclass(frozen=True)
class DecodeSettings:
    """Hold what the workers need to turn a manifest entry into the encoder's pixels."""

    storage: Storage
    image_column: str
    id_column: str | None
    max_pixels: int
    bit_depth: Literal["auto"] | int
    recipe: SampleRecipe

    @property
    def fit(self) -> str:
        """Say how an image becomes square."""
        return self.recipe.fit


@dataclass(frozen=True)
class Shared:
    """Hold what every unit may need: the images that the lake holds, and the candidates for each group's guides."""

    known: Contents
    guides: Mapping[str, pa.Table]
    """By group: manifest rows of images to align with, see `SampleRecipe`. Empty without alignment."""


class DecodedUnit(NamedTuple):
    """Hold what an actor gets of one unit; the arrays are those of `samples.recipe.stacked`, flat."""

    unit_id: str
    receipts: pa.Table
    """RECEIPTS of every image; those that are ok and have no embedding yet have pixels, in this order."""
    pixels: np.ndarray
    """uint8 (M · S · S · 3,) of their views."""
    valid: np.ndarray
    """bool (n · V · P,)."""
    motions: np.ndarray
    """float32 (n · V · 2 · 3,)."""

    def as_row(self) -> pa.Table:
        """Pack it as one row of list columns, which travels between the stages."""
        receipts = pa.array([self.receipts.to_pylist()], pa.list_(pa.struct(RECEIPTS)))
        arrays = {name: _one_list(getattr(self, name)) for name in ("pixels", "valid", "motions")}
        return pa.table({"unit_id": [self.unit_id], "receipts": receipts, **arrays})

    @classmethod
    def of(cls, row: pa.Table) -> DecodedUnit:
        """Unpack what `as_row` has packed; the pixels are not copied."""
        receipts = pa.Table.from_struct_array(row["receipts"][0].values).cast(RECEIPTS)
        arrays = (row[name][0].values.to_numpy(zero_copy_only=False) for name in ("pixels", "valid", "motions"))
        return cls(row["unit_id"][0].as_py(), receipts, *arrays)


def _one_list(array: np.ndarray) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array([0, array.size], pa.int64()), pa.array(array.reshape(-1)))


def decode_unit(batch: pa.Table, *, settings: DecodeSettings, shared: Sequence[Shared]) -> pa.Table:
    """Read and decode one unit, a row of `units.UNIT`; a bad image is a receipt with its error.

    Returns:
        One row, see `DecodedUnit.of`.
    """
    (unit,) = batch.to_pylist()
    common = shared[0]  # fetched here, once per process: see `Executor.stream`
    guides = _guides(common.guides.get(unit["group_id"]), settings)
    receipts: list[dict[str, Any]] = [{} for _ in unit["image_id"]]
    views: list[Views | None] = [None] * len(receipts)
    for index, data in encoded(unit, settings):
        receipts[index], views[index] = _decode_one(
            data, unit["turn"][index], unit["role"][index], unit["part_id"][index], common.known, guides, settings
        )
    for index, receipt in enumerate(receipts):
        receipt |= {name: unit[name][index] for name in SAMPLE_KEY}
    fresh = [view for view in views if view is not None]
    nothing = (np.empty(0, np.uint8), np.empty(0, bool), np.empty(0, np.float32))
    return DecodedUnit(unit["unit_id"], table(receipts, RECEIPTS), *(stacked(fresh) if fresh else nothing)).as_row()


class _Candidate(NamedTuple):
    """An image to align with, and what says whether it may be compared with another."""

    content: str
    part: str | None
    guide: Guide


def _guides(candidates: pa.Table | None, settings: DecodeSettings) -> list[_Candidate]:
    """The images to align with: all prompts, or the first candidate for the template that is an image.

    Raises:
        ArchiveError: a prompt or a template cannot be read, or a prompt is no image.
    """
    found: list[_Candidate] = []
    if candidates is None:
        return found
    for row in candidates.to_pylist():
        ((_, data),) = encoded({name: [row[name]] for name in PLACE}, settings)
        name = f"the {'prompt' if settings.recipe.few_shot else 'template'} {row['image_id']} of the alignment"
        if isinstance(data, ArchiveError):  # the next candidate would give these images another frame than the others
            raise ArchiveError(
                f"{name} cannot be read: {data} Run again where that is the store's fault; a file that was removed or "
                "changed needs a new run id, which lists the archive anew."
            ) from data
        try:
            image = decode(data, max_pixels=settings.max_pixels, bit_depth=settings.bit_depth)
        except DecodeError as exc:
            if settings.recipe.few_shot:
                raise ArchiveError(f"{name} cannot be used: {exc}. Mend or remove it.") from exc
            continue  # what is no image is no template: the next one is, for every image of the group alike
        found.append(_Candidate(content_hash(data), row["part_id"], Guide.of(image)))
        if not settings.recipe.few_shot:
            break
    return found


def encoded(
    images: Mapping[str, Sequence[Any]], settings: DecodeSettings
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Read encoded bytes, or the error in their place, of loose files or members of one shard, each with its index.

    ``images`` holds the manifest's columns format, uri, key, offset and size. A tar member with a known place is read
    by its byte range, so a shard is not walked again for every unit.
    """
    format = images["format"][0]
    if format == "files":
        yield from read_files(images["uri"], settings.storage)
        return
    placed = [index for index, offset in enumerate(images["offset"]) if offset is not None]
    offsets, sizes = ([images[name][index] for index in placed] for name in ("offset", "size"))
    for place, data in read_ranges(images["uri"][0], offsets, sizes, settings.storage):
        yield placed[place], data
    walked = sorted(set(range(len(images["key"]))) - set(placed))
    if not walked:
        return
    found = read_images(
        images["uri"][0],
        format,
        [images["key"][index] for index in walked],
        storage=settings.storage,
        image_column=settings.image_column,
        id_column=settings.id_column,
    )
    for place, data in found:
        yield walked[place], data


def _decode_one(
    data: bytes | ArchiveError,
    turn: int | None,
    role: str | None,
    part: str | None,
    known: Contents,
    guides: list[_Candidate],
    settings: DecodeSettings,
) -> tuple[dict[str, Any], Views | None]:
    if isinstance(data, ArchiveError):
        return {"status": FAILED, "error": str(data)}, None
    recipe = settings.recipe
    digest = content_hash(data)
    # An aligned sample depends on its group's guides: another group's image of the same content is another sample.
    if recipe.align is None and (earlier := known.find(digest, turn, role)):
        return earlier, None
    try:
        image = decode(data, max_pixels=settings.max_pixels, bit_depth=settings.bit_depth)
    except DecodeError as exc:
        return {"content_hash": digest, "status": FAILED, "error": in_settings(str(exc))}, None
    image, view = turned(image, turn or 0), view_number(role)
    if view is not None:
        image = stand_in(image, view)
    height, width = image.shape[:2]
    receipt = {"content_hash": digest, "width": width, "height": height, "status": OK}
    if recipe.few_shot:  # a prompt that is the query itself, or shows its part, would hide the query's own defect
        usable = [None if g.content == digest or (part and g.part == part) else g.guide for g in guides]
        return receipt, recipe.views(image, usable)
    return receipt, recipe.views(image, [g.guide for g in guides])
