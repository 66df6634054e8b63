"""Catalog one shard: the unit of work that the catalog spreads over threads or Ray tasks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.keys import CATALOGUED, KeyRule, Seen, Selection, assign
from patchead.archive.listing import BATCH_ROWS, resolve
from patchead.archive.members import Listed, members_schema, number_duplicates
from patchead.archive.parquet import list_parquet
from patchead.archive.readers import open_shard
from patchead.archive.tar import list_tar
from patchead.errors import ArchiveError
from patchead.schema import table
from patchead.storage import Storage, explained

_NOTE = b"patchead"


@dataclass(frozen=True)
class Shard:
    """One tar or Parquet file and everything that is needed to catalog it elsewhere."""

    path: str  # relative to the archive
    uri: str
    format: str
    size: int
    etag: str | None
    error: str | None  # what the listing found wrong with the file
    rule: KeyRule
    selection: Selection
    storage: Storage
    image_column: str
    id_column: str | None


@dataclass(frozen=True)
class ShardNote:
    """What `list_shard` has to say besides its rows; it travels in their schema's metadata."""

    ignored: int = 0
    nights: list[str] = field(default_factory=list)
    products: list[str] = field(default_factory=list)
    unreachable: str | None = None  # the storage did not answer: no fault of this shard

    @classmethod
    def of(cls, rows: pa.Table) -> ShardNote:
        """The note that came with ``rows``."""
        return cls(**json.loads(rows.schema.metadata[_NOTE]))


def list_shard(shard: Shard) -> pa.Table:
    """`keys.CATALOGUED` rows of the shard's images that are selected, with a `ShardNote`.

    A shard that is broken adds one failed row for itself to those of the images that could be listed.
    """
    listed, unreachable = _open_and_list(shard)
    seen = Seen()
    entries = number_duplicates(_entries(shard, listed))
    rows = [assign(batch, shard.rule, shard.selection, seen) for batch in entries.to_batches(BATCH_ROWS)]
    note = ShardNote(listed.ignored, sorted(seen.nights), sorted(seen.products), unreachable)
    text = json.dumps(vars(note)).encode()
    return pa.Table.from_batches(rows, schema=CATALOGUED).replace_schema_metadata({_NOTE: text})


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
    columns = shard.rule.columns
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
