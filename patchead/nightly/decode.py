"""Stage 2: the encoded images of one unit become one block of pixels and one receipt each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from patchead.archive.decode import decode
from patchead.archive.readers import read_files, read_images, read_ranges
from patchead.arrow_columns import values
from patchead.errors import ArchiveError, DecodeError
from patchead.hashing import content_hash
from patchead.samples.recipe import SampleRecipe, stacked, turned
from patchead.samples.views import Guide, Views
from patchead.schema import FAILED, OK, RECEIPTS, table
from patchead.storage import Storage

_HASH_DIGITS = 32

PLACE = ("format", "uri", "key", "offset", "size")
"""Columns of the manifest that say where an image's bytes are."""


@dataclass(frozen=True)
class DecodeSettings:
    """What the workers need to turn a manifest entry into the encoder's pixels."""

    storage: Storage
    image_column: str
    id_column: str | None
    max_pixels: int
    bit_depth: Literal["auto"] | int
    recipe: SampleRecipe

    @property
    def fit(self) -> str:
        return self.recipe.fit


class KnownImages:
    """Images that the lake already holds under this encoder, looked up by content hash or by id, etag and size."""

    def __init__(self, receipts: pa.Table) -> None:
        self._receipts = receipts.sort_by("content_hash").combine_chunks()
        hashes = values(self._receipts["content_hash"]).cast(pa.binary()).cast(pa.binary(_HASH_DIGITS))
        self._hashes = np.frombuffer(hashes.buffers()[1] or b"", dtype=f"S{_HASH_DIGITS}")

    def by_hash(self, digest: str) -> dict[str, Any] | None:
        """The receipt of an image with this content, or None."""
        position = int(np.searchsorted(self._hashes, digest.encode()))
        if position == len(self._hashes) or self._hashes[position] != digest.encode():
            return None
        return self._receipts.slice(position, 1).to_pylist()[0]

    def unchanged(self, manifest: pa.Table) -> pa.Table:
        """Receipts of the manifest's images whose id, etag and size are as they were: they need not be read."""
        place = pc.index_in(_identity(manifest), value_set=_identity(self._receipts), skip_nulls=True)
        return self._receipts.take(place.filter(pc.is_valid(place)))


def _identity(rows: pa.Table) -> pa.Array:
    """Image id, etag and size as one value."""
    # Large strings: a lake can hold more than 2 GB of them.
    parts = [values(rows[name].cast(pa.large_string())) for name in ("image_id", "etag", "size")]
    return pc.binary_join_element_wise(*parts, pa.scalar("\n", pa.large_string()))


@dataclass(frozen=True)
class Shared:
    """What every unit may need: the images that the lake holds, and the candidates for each group's guides."""

    known: KnownImages
    guides: Mapping[str, pa.Table]
    """By group: manifest rows of images to align with, see `SampleRecipe`. Empty without alignment."""


def decode_unit(batch: pa.Table, *, settings: DecodeSettings, shared: ray.ObjectRef) -> pa.Table:
    """One unit (a row of lists, see `patchead.nightly.embed.units`) to one row: receipts and pixels.

    ``receipts`` is an Arrow IPC stream of RECEIPTS; ``pixels`` the raw uint8 (M, S, S, 3) of the views of those images
    that are ok and have no embedding yet, in the receipts' order, ``valid`` the raw bool (n, V, P) and ``motions`` the
    raw float32 (n, V, 2, 3) of `samples.views.Views`. A bad image is a receipt with its error.
    """
    (unit,) = batch.to_pylist()
    common: Shared = ray.get(shared)
    guides = _guides(common.guides.get(unit["group_id"]), settings)
    receipts: list[dict[str, Any]] = [{} for _ in unit["image_id"]]
    views: list[Views | None] = [None] * len(receipts)
    for index, data in encoded(unit, settings):
        receipts[index], views[index] = _decode_one(
            data, unit["turn"][index], unit["part_id"][index], common.known, guides, settings
        )
    for index, receipt in enumerate(receipts):
        receipt |= {name: unit[name][index] for name in ("image_id", "etag", "size")}
    fresh = [view for view in views if view is not None]
    blocks = stacked(fresh) if fresh else (np.empty(0, np.uint8),) * 3
    raw = zip(("pixels", "valid", "motions"), blocks, strict=True)
    return pa.table(
        {
            "unit_id": [unit["unit_id"]],
            "receipts": pa.array([to_ipc(table(receipts, RECEIPTS))], pa.large_binary()),
            **{name: pa.array([block.tobytes()], pa.large_binary()) for name, block in raw},
        }
    )


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
            raise ArchiveError(f"{name} cannot be read: {data} Run again, or remove it.") from data
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
    """Encoded bytes, or the error in their place, of loose files or of members of one shard, each with its index.

    ``images`` holds the manifest's columns format, uri, key, offset and size. A tar member with a known place is read
    by its byte range, so a shard is not walked again for every unit.
    """
    kind = images["format"][0]
    if kind == "files":
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
        kind,
        [images["key"][index] for index in walked],
        storage=settings.storage,
        image_column=settings.image_column,
        id_column=settings.id_column,
    )
    for place, data in found:
        yield walked[place], data


def _decode_one(
    data: bytes | ArchiveError,
    turn: int,
    part: str | None,
    lake: KnownImages,
    guides: list[_Candidate],
    settings: DecodeSettings,
) -> tuple[dict[str, Any], Views | None]:
    if isinstance(data, ArchiveError):
        return {"status": FAILED, "error": str(data)}, None
    recipe = settings.recipe
    own = content_hash(data)
    digest = content_hash(data + f"@{turn}".encode()) if turn else own
    # An aligned sample depends on its group's guides: another group's image of the same content is another sample.
    if recipe.align is None and (earlier := lake.by_hash(digest)):
        return earlier, None
    try:
        image = decode(data, max_pixels=settings.max_pixels, bit_depth=settings.bit_depth)
    except DecodeError as exc:
        return {"content_hash": digest, "status": FAILED, "error": str(exc)}, None
    image = turned(image, turn)
    height, width = image.shape[:2]
    receipt = {"content_hash": digest, "width": width, "height": height, "status": OK}
    if recipe.few_shot:  # a prompt that is the query itself, or shows its part, would hide the query's own defect
        usable = [None if g.content == own or (part and g.part == part) else g.guide for g in guides]
        return receipt, recipe.views(image, usable)
    return receipt, recipe.views(image, [g.guide for g in guides])


def to_ipc(receipts: pa.Table) -> bytes:
    """An Arrow table as the bytes of one IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, receipts.schema) as writer:
        writer.write_table(receipts)
    return sink.getvalue().to_pybytes()


def from_ipc(data: pa.Buffer | bytes) -> pa.Table:
    """The inverse of `to_ipc`."""
    return pa.ipc.open_stream(data).read_all()
