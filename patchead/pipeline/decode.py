"""Stage 2: the encoded images of one unit become one block of pixels and one receipt each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from patchead.archive.decode import content_hash, decode, fit
from patchead.archive.readers import read_files, read_images, read_ranges
from patchead.errors import ArchiveError, DecodeError
from patchead.pipeline.columns import values
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
    image_size: int
    fit: str


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


def decode_unit(batch: pa.Table, *, settings: DecodeSettings, known: ray.ObjectRef) -> pa.Table:
    """One unit (a row of lists, see `patchead.pipeline.embed.units`) to one row: receipts and pixels.

    ``receipts`` is an Arrow IPC stream of RECEIPTS, ``pixels`` the raw uint8 (n, S, S, 3) of those images that are
    ok and have no embedding yet, in the receipts' order. A bad image is a receipt with its error.
    """
    (unit,) = batch.to_pylist()
    lake: KnownImages = ray.get(known)
    receipts: list[dict[str, Any]] = [{} for _ in unit["image_id"]]
    pixels: list[np.ndarray | None] = [None] * len(receipts)
    for index, data in encoded(unit, settings):
        receipts[index], pixels[index] = _decode_one(data, lake, settings)
    for index, receipt in enumerate(receipts):
        receipt |= {name: unit[name][index] for name in ("image_id", "etag", "size")}
    block = np.stack(fresh) if (fresh := [image for image in pixels if image is not None]) else np.empty(0, np.uint8)
    return pa.table(
        {
            "unit_id": [unit["unit_id"]],
            "receipts": pa.array([to_ipc(table(receipts, RECEIPTS))], pa.large_binary()),
            "pixels": pa.array([block.tobytes()], pa.large_binary()),
        }
    )


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
    data: bytes | ArchiveError, lake: KnownImages, settings: DecodeSettings
) -> tuple[dict[str, Any], np.ndarray | None]:
    if isinstance(data, ArchiveError):
        return {"status": FAILED, "error": str(data)}, None
    digest = content_hash(data)
    if earlier := lake.by_hash(digest):
        return earlier, None
    try:
        image = decode(data, max_pixels=settings.max_pixels, bit_depth=settings.bit_depth)
    except DecodeError as exc:
        return {"content_hash": digest, "status": FAILED, "error": str(exc)}, None
    height, width = image.shape[:2]
    receipt = {"content_hash": digest, "width": width, "height": height, "status": OK}
    return receipt, fit(image, settings.image_size, settings.fit)


def to_ipc(receipts: pa.Table) -> bytes:
    """An Arrow table as the bytes of one IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, receipts.schema) as writer:
        writer.write_table(receipts)
    return sink.getvalue().to_pybytes()


def from_ipc(data: pa.Buffer | bytes) -> pa.Table:
    """The inverse of `to_ipc`."""
    return pa.ipc.open_stream(data).read_all()
