"""Stage 2: the encoded images of one unit become one block of pixels and one receipt each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.blocks import blocks_of
from patchead.archive.decode import decode
from patchead.archive.readers import BYTES_IN_FLIGHT, read_files, read_images, read_ranges
from patchead.archive.room import Room
from patchead.errors import ArchiveError, DecodeError, UnreadError
from patchead.hashing import content_hash
from patchead.lake.contents import Contents
from patchead.nightly.decoded_unit import DecodedUnit
from patchead.nightly.units import PLACE, view_number
from patchead.runtime.in_hand import InHand, Watch
from patchead.samples.recipe import SampleRecipe, stacked, turned
from patchead.samples.stand_ins import stand_in
from patchead.samples.views import Guide, Views
from patchead.schema import FAILED, OK, RECEIPTS, SAMPLE_KEY, UNREAD, table
from patchead.settings.argument_names import in_settings
from patchead.storage import Storage

_BYTES_PER_PIXEL = 26  # of 16-bit RGB with alpha, at the worst moment
_ASKED = ("turn", "role", "part_id", "reading")


class Scaling(NamedTuple):
    """Say how values of more than 8 bits are scaled, see `archive.decode.decode`."""

    bit_depth: int | None
    clip: bool

    @property
    def settled(self) -> int | None:
        """Give the bits that were settled for the group; None where the settings fix them, or none were."""
        return None if self.clip else self.bit_depth


@dataclass(frozen=True)
class DecodeSettings:
    """Hold what the workers need to turn a manifest entry into the encoder's pixels."""

    storage: Storage
    image_column: str
    id_column: str | None
    max_pixels: int
    bit_depth: Literal["auto"] | int
    recipe: SampleRecipe
    max_bytes: int = 1_000_000_000
    bytes_in_flight: int = BYTES_IN_FLIGHT
    max_image_seconds: float = 120.0
    in_hand: InHand | None = None
    """What remembers the image that each process has in hand; without it, no time is limited."""

    def watch(self, work: str) -> Watch:
        """Begin a work of which one image may end its process, or never end."""
        return Watch(self.in_hand, work, self.max_image_seconds)

    @property
    def fit(self) -> str:
        """Say how an image becomes square."""
        return self.recipe.fit

    def memory_bytes(self, sizes: pa.ChunkedArray | pa.Array) -> int:
        """Bound what one task takes: what it fetches at a time, and the largest image while it is decoded.

        ``sizes`` are those of the manifest, in bytes: one above ``bytes_in_flight`` is fetched alone.
        """
        return decoding_memory(self.max_pixels, self.bytes_in_flight, min(pc.max(sizes).as_py() or 0, self.max_bytes))

    def scaling(self, settled: int | None) -> Scaling:
        """Scale by the setting or, with auto, by what was ``settled`` for the group."""
        return Scaling(settled, False) if self.bit_depth == "auto" else Scaling(self.bit_depth, True)


def decoding_memory(max_pixels: int, bytes_in_flight: int, largest: int = 0) -> int:
    """Bound the bytes that a task takes which decodes one image after the other, of up to ``largest`` bytes each.

    What was fetched lies beside the page of Parquet that it came from.
    """
    return 2 * max(bytes_in_flight, largest) + max_pixels * _BYTES_PER_PIXEL


@dataclass(frozen=True)
class Shared:
    """Hold what every unit may need: the images that the lake holds, and the candidates for each group's guides."""

    known: Contents
    guides: Mapping[str, pa.Table]
    """By group: manifest rows of images to align with, see `SampleRecipe`. Empty without alignment."""


def decode_unit(batch: pa.Table, *, settings: DecodeSettings, shared: Sequence[Shared]) -> pa.Table:
    """Read and decode one unit, a row of `units.UNIT`; a bad image is a receipt with its error.

    Returns:
        One row, see `DecodedUnit.of`.
    """
    (unit,) = batch.to_pylist()
    common = shared[0]  # fetched here, once per process: see `Executor.stream`
    scaling = settings.scaling(next(iter(unit["bit_depth"]), None))
    receipts: list[dict[str, Any]] = [{} for _ in unit["image_id"]]
    views: list[Views | None] = [None] * len(receipts)
    read_bytes = 0
    with settings.watch(f"decoding of {len(receipts)} images of {unit['group_id']} ({unit['unit_id']})") as watch:
        guides = _guides(common.guides.get(unit["group_id"]), settings, scaling, watch)
        hand = _AtHand(common.known, guides, settings, scaling, watch, Room())
        for index, data in encoded(unit, settings):
            read_bytes += len(data) if isinstance(data, bytes) else 0
            asked = {name: unit[name][index] for name in (*_ASKED, "image_id")}
            receipts[index], views[index] = _decode_one(data, asked, hand)
    for index, receipt in enumerate(receipts):
        receipt |= {name: unit[name][index] for name in SAMPLE_KEY}
    fresh = [view for view in views if view is not None]
    nothing = (np.empty(0, np.uint8), np.empty(0, bool), np.empty(0, np.float32), np.empty(0, np.int16))
    pixels, valid, motions, blocks = stacked(fresh) if fresh else nothing
    arrays, rows, group_id = (pixels, valid, motions, blocks), table(receipts, RECEIPTS), unit["group_id"]
    return DecodedUnit(unit["unit_id"], rows, *arrays, group_id, read_bytes).as_row()


class _Candidate(NamedTuple):
    """An image to align with, and what says whether it may be compared with another."""

    content: str
    part: str | None
    guide: Guide
    photo: str
    """Its content, or that of another prompt of the same photo."""

    def shows(self, image: np.ndarray, digest: str) -> bool:
        """Tell whether it has the bytes or the pixels of an image: in another lossless file it is the same photo."""
        mine, rows = self.guide.image, slice(0, 8)  # a glance first
        return self.content == digest or (np.array_equal(mine[rows], image[rows]) and np.array_equal(mine, image))


class _AtHand(NamedTuple):
    """What every image of a unit is decoded with."""

    known: Contents
    guides: list[_Candidate]
    settings: DecodeSettings
    scaling: Scaling
    watch: Watch
    room: Room
    """One image lies in it at a time: its views are copies."""


def _guides(candidates: pa.Table | None, settings: DecodeSettings, scaling: Scaling, watch: Watch) -> list[_Candidate]:
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
            with watch.over(name):
                image = decode(data, max_pixels=settings.max_pixels, **scaling._asdict())
        except DecodeError as exc:
            if settings.recipe.few_shot:
                raise ArchiveError(f"{name} cannot be used: {exc}. Mend or remove it.") from exc
            continue  # what is no image is no template: the next one is, for every image of the group alike
        content = content_hash(data)
        found.append(_Candidate(content, row["part_id"], Guide.of(image), row.get("same_as") or content))
        if not settings.recipe.few_shot:
            break
    return found


def encoded(
    images: Mapping[str, Sequence[Any]], settings: DecodeSettings, *, first: int | None = None
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Read encoded bytes, or the error in their place, of loose files or members of one shard, each with its index.

    ``images`` holds the columns `units.PLACE` of the manifest. A tar member with a known place is read by its byte
    range, so a shard is not walked again for every unit. Loose files and such members may be read up to their ``first``
    bytes. What has more than ``settings.max_bytes`` is not read.
    """
    format, uris, sizes, keys = (images[name] for name in ("format", "uri", "size", "key"))
    placed, walked = list[int](), list[int]()
    for index, size in enumerate(sizes):
        if size > settings.max_bytes:
            yield index, _too_long(size, settings)
        else:
            whole = format[0] != "files" and images["offset"][index] is None
            (walked if whole else placed).append(index)
    asked = [sizes[index] if first is None else min(first, sizes[index]) for index in placed]
    options: dict[str, Any] = {"bytes_in_flight": settings.bytes_in_flight}
    if format[0] == "files":
        options["etags"] = [images["etag"][index] for index in placed]
        found = read_files([uris[index] for index in placed], settings.storage, sizes=asked, first=first, **options)
    else:
        offsets = [images["offset"][index] for index in placed]
        found = read_ranges(uris[0], offsets, asked, settings.storage, etag=images["etag"][0], **options)
    for place, data in found:
        yield placed[place], data
    if not walked:
        return
    found = read_images(
        uris[0],
        format[0],
        [keys[index] for index in walked],
        storage=settings.storage,
        image_column=settings.image_column,
        id_column=settings.id_column,
        etag=images["etag"][0],
        max_bytes=settings.max_bytes,
        bytes_in_flight=settings.bytes_in_flight,
    )
    for place, data in found:
        if isinstance(data, bytes) and len(data) > settings.max_bytes:
            data = _too_long(len(data), settings)  # noqa: PLW2901
        yield walked[place], data


def _too_long(size: int, settings: DecodeSettings) -> ArchiveError:
    return ArchiveError(f"too many bytes: {size} > `max_bytes` {settings.max_bytes}")


def _decode_one(
    data: bytes | ArchiveError, asked: Mapping[str, Any], hand: _AtHand
) -> tuple[dict[str, Any], Views | None]:
    if isinstance(data, ArchiveError):
        return {"status": UNREAD if isinstance(data, UnreadError) else FAILED, "error": in_settings(str(data))}, None
    digest = content_hash(data)
    # An aligned sample depends on its group's guides: another group's image of the same content is another sample.
    same = {"reading": asked["reading"], "bit_depth": hand.scaling.settled}
    if hand.settings.recipe.align is None and (
        earlier := hand.known.find(digest, asked["turn"], asked["role"], **same)
    ):
        return earlier, None
    try:
        with hand.watch.over(asked["image_id"]):
            return _decoded(data, digest, asked, hand)
    except DecodeError as exc:
        return {"content_hash": digest, "status": FAILED, "error": in_settings(str(exc))}, None


def _decoded(data: bytes, digest: str, asked: Mapping[str, Any], hand: _AtHand) -> tuple[dict[str, Any], Views]:
    """The receipt and the views of one image."""
    recipe = hand.settings.recipe
    image = decode(data, max_pixels=hand.settings.max_pixels, room=hand.room, **hand.scaling._asdict())
    blocks = blocks_of(image, data)
    photos = {g.photo for g in hand.guides if recipe.few_shot and g.shows(image, digest)}
    image, view = turned(image, asked["turn"] or 0), view_number(asked["role"])
    if view is not None:
        image = stand_in(image, view)
    height, width = image.shape[:2]
    receipt = {"content_hash": digest, "width": width, "height": height, "status": OK}
    if recipe.few_shot:  # a prompt that is the query itself, or shows its part, would hide the query's own defect
        usable: list[Guide | None] = [
            None if g.photo in photos or (asked["part_id"] and g.part == asked["part_id"]) else g.guide
            for g in hand.guides
        ]
    else:
        usable = [g.guide for g in hand.guides]
    return receipt, replace(recipe.views(image, usable), blocks=blocks)
