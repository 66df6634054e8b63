"""Catalog one shard: what the catalog does in threads or Ray tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.keys import CATALOGUED, KeySources, Seen, Selection, assign
from patchead.archive.left_out import LeftOut
from patchead.archive.listing import BATCH_ROWS, resolve
from patchead.archive.members import Listed, members_schema, number_duplicates
from patchead.archive.parquet import BYTES_UNPACKED, list_parquet
from patchead.archive.readers import open_shard
from patchead.archive.tar import list_tar
from patchead.errors import ArchiveError
from patchead.schema import table
from patchead.storage import Storage, explained

LISTING_BYTES = 2 * BYTES_UNPACKED
"""Memory that the listing of one shard may take: pages of Parquet, unpacked, and their texts."""


@dataclass(frozen=True)
class Shard:
    """Hold one tar or Parquet file and everything that is needed to catalog it elsewhere."""

    path: str  # relative to the archive
    uri: str
    format: str
    size: int
    etag: str | None
    error: str | None  # what the listing found wrong with the file
    sources: KeySources
    selection: Selection
    storage: Storage
    image_column: str
    id_column: str | None


@dataclass(frozen=True)
class ShardListing:
    """Hold what is known of one shard: `keys.CATALOGUED` rows of its images, and what they do not tell."""

    images: pa.Table
    left_out: LeftOut = field(default_factory=LeftOut)
    """Members that are no images."""
    nights: list[str] = field(default_factory=list)
    """Nights of images that the selection left out; `products` likewise. A sample, see `keys.Seen`."""
    products: list[str] = field(default_factory=list)
    unreadable: LeftOut = field(default_factory=LeftOut)
    """Values of its images that are null, as they cannot be read."""
    unreachable: str | None = None
    """Why the storage did not answer: no fault of this shard."""


def list_shard(shard: Shard) -> ShardListing:
    """List the images of a shard that are selected.

    A shard that is broken adds one failed row for itself to those of the images that could be listed.
    """
    listed, unreachable = _open_and_list(shard)
    seen = Seen()
    entries = number_duplicates(_entries(shard, listed))
    found = [assign(batch, shard.sources, shard.selection, seen) for batch in entries.to_batches(BATCH_ROWS)]
    images = pa.Table.from_batches(found, schema=CATALOGUED)
    seen_too = sorted(seen.nights), sorted(seen.products), seen.unreadable
    return ShardListing(images, listed.left_out, *seen_too, unreachable)


def _open_and_list(shard: Shard) -> tuple[Listed, str | None]:
    nothing = members_schema([]).empty_table()
    if shard.error:
        return Listed(nothing, broken=shard.error), None
    try:
        with explained("read", shard.uri, ArchiveError):
            return _list(shard), None
    except ArchiveError as exc:
        return Listed(nothing, broken=str(exc)), str(exc) if _is_unreachable(exc.__cause__) else None


def _list(shard: Shard) -> Listed:
    columns = shard.sources.columns
    filesystem, path = resolve(shard.uri, shard.storage)
    with open_shard(filesystem, path) as stream:
        if shard.format == "tar":
            return list_tar(stream, columns)
        return list_parquet(stream, columns, image_column=shard.image_column, id_column=shard.id_column)


def _is_unreachable(cause: BaseException | None) -> bool:
    from botocore.exceptions import BotoCoreError

    return isinstance(cause, ConnectionError | TimeoutError | BotoCoreError)


def _entries(shard: Shard, listed: Listed) -> pa.Table:
    own = {"uri": shard.uri, "path": shard.path, "format": shard.format, "etag": shard.etag}
    entries = listed.members.append_column(
        "image_id", pc.binary_join_element_wise(pa.scalar(shard.path), listed.members["key"], "#")
    )
    for name, value in own.items():
        entries = entries.append_column(name, pa.repeat(pa.scalar(value, pa.string()), entries.num_rows))
    if listed.broken:
        row = {**own, "image_id": shard.path, "size": shard.size, "error": listed.broken}
        entries = pa.concat_tables([entries, table([row], entries.schema)])
    return entries
