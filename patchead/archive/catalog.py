"""Stage 1: list the archive once and write the manifest, one row per image, with stable ids and group keys.

Ids name files: the path relative to the archive, plus ``#member`` in a tar or ``#row key`` in a Parquet file.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.keys import CATALOGUED, TEMPLATE, KeySources, Seen, Selection, assign
from patchead.archive.left_out import LeftOut
from patchead.archive.listing import SUFFIXES, Root, formats_of, list_files, open_root
from patchead.archive.members import number_duplicates
from patchead.archive.shards import Shard, ShardListing, list_shard
from patchead.arrow_columns import set_column
from patchead.batches import concurrently
from patchead.errors import ArchiveError, SettingsError, bad_value
from patchead.hashing import text_digest
from patchead.schema import FAILED, MANIFEST
from patchead.storage import Storage, explained

MapShards = Callable[[Callable[[Shard], ShardListing], Iterable[Shard]], Iterable[ShardListing]]

_THREADS = 8
LAKE_FOLDERS = ("embeddings", "heatmaps", "runs", "tables")


@dataclass(frozen=True)
class CatalogRequest:
    """Say what to list: the fields of `settings.images.ArchiveConfig` of the same names, and how to reach it.

    The folders of ``lake`` are no part of the archive, even where they lie inside it.
    """

    uri: str
    format: str = "auto"
    template: str | None = None
    group_by: tuple[str, ...] = ("night", "product")
    assume: Mapping[str, str] = field(default_factory=dict)
    image_column: str = "image"
    id_column: str | None = None
    part_id_column: str | None = None
    night: dt.date | None = None
    products: tuple[str, ...] = ()
    limit: int | None = None
    folder_is_product: bool = False
    keys: tuple[str, ...] = ()
    lake: str | None = None
    storage: Storage = field(default_factory=Storage)

    @property
    def key_sources(self) -> KeySources:
        """Say where the values of the keys come from."""
        top = self.uri.rstrip("/").rpartition("/")[2] if self.folder_is_product else None
        assumed = tuple(sorted(self.assume.items()))
        return KeySources(self.group_by, self.template, assumed, self.part_id_column, self.keys, top)

    @property
    def selection(self) -> Selection:
        """Say which images are taken."""
        return Selection(self.night, self.products)

    @property
    def digest(self) -> str:
        """Identify what is asked for: where it differs, the manifest may."""
        asked = {**vars(self), "storage": self.storage.endpoint, "assume": sorted(self.assume.items())}
        return text_digest(json.dumps(asked, default=str, sort_keys=True))

    @property
    def formats(self) -> tuple[str, ...]:
        """Name the formats that are taken, all of them with ``auto``."""
        return tuple(SUFFIXES) if self.format == "auto" else (self.format,)


@dataclass(frozen=True)
class Catalog:
    """Hold what was found: ``manifest``, a `schema.MANIFEST` table sorted by image id; ``left_out``: no images;
    ``unreadable``: values of images that are null.
    """

    manifest: pa.Table
    left_out: LeftOut
    unreadable: LeftOut
    shards: int

    @property
    def ignored(self) -> int:
        """Count the files and members that are no images."""
        return self.left_out.total


@dataclass
class Found:
    """Hold what the listing has brought so far."""

    rows: list[pa.Table] = field(default_factory=list)
    shards: list[pa.RecordBatch] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    seen: Seen = field(default_factory=Seen)
    opened: int = 0
    """Shards."""


def catalog(request: CatalogRequest, *, map_shards: MapShards | None = None) -> Catalog:
    """List the archive; every image found is one row, with a status and an error where something is wrong with it.

    ``map_shards`` lists the shards (``map``-like; the function and its items pickle); default: eight threads.

    Raises:
        ArchiveError: the archive cannot be reached or listed, holds no image, none passes the filters, or none has
            a value for a key of ``group_by``.
        SettingsError: ``format`` or ``template`` is none.
    """
    found = listed(request, map_shards=map_shards or partial(concurrently, at_once=_THREADS))
    manifest = _manifest(request, found)
    return Catalog(manifest, found.left_out, found.seen.unreadable, found.opened)


def listed(request: CatalogRequest, *, map_shards: MapShards, seen: Seen | None = None) -> Found:
    """List what the request takes; ``seen`` collects nights and products of what it does not take.

    Raises:
        ArchiveError, SettingsError: as `catalog`, but for what it says of all rows together.
    """
    found = Found(seen=seen or Seen())
    with explained("list", request.uri, ArchiveError):
        root = _open(request)
        for batch in _batches(root, request, found):
            _sort_out(batch, root, request, found)
    for listing in map_shards(list_shard, _shards(root, request, found)):
        found.opened += 1
        _take(listing, found)
    return found


def first_look(request: CatalogRequest) -> None:
    """Refuse what `catalog` would refuse, after listing no more than shows it: before a cluster is waited for.

    Raises:
        ArchiveError: there is no image, or none of the files has the keys; see `catalog`. Shards are not opened.
    """
    found = Found()
    with explained("list", request.uri, ArchiveError):
        root = _open(request)
        for batch in _batches(root, request, found):
            _sort_out(batch, root, request, found)
            if found.shards or pc.any(found.rows[-1]["error"].is_null()).as_py():
                return
    _checked_rows(request, found)


def _open(request: CatalogRequest) -> Root:
    if request.format not in ("auto", *SUFFIXES):
        raise SettingsError(bad_value("archive.format", request.format, f"one of auto, {', '.join(SUFFIXES)}"))
    return open_root(request.uri, request.storage)


def _batches(root: Root, request: CatalogRequest, found: Found) -> Iterator[pa.RecordBatch]:
    """The files of the folders that the selection may want."""
    own, sources, selection = _folders_of_lake(request), request.key_sources, request.selection

    def keep(folder: str) -> bool | None:
        if folder in own:
            return False
        wanted = selection.wants(sources.of_folder(folder), found.seen)
        below = f"{folder}/" if folder else ""
        return None if wanted and any(name.startswith(below) for name in own) else wanted

    return list_files(root, keep)


def _checked_rows(request: CatalogRequest, found: Found) -> pa.Table:
    """The rows in order, if there is one and the archive has the keys."""
    rows = pa.concat_tables([CATALOGUED.empty_table(), *found.rows])
    rows = rows.sort_by([("image_id", "ascending"), ("uri", "ascending")])
    _check_something_selected(request, rows, found)
    _check_keys(request, rows)
    return rows


def _folders_of_lake(request: CatalogRequest) -> list[str]:
    """The lake's own folders, relative to the archive, where they lie inside it."""
    archive, lake = request.uri.rstrip("/"), (request.lake or "").rstrip("/")
    if lake != archive and not lake.startswith(f"{archive}/"):
        return []
    inside = lake[len(archive) :].strip("/")
    return [f"{inside}/{name}".lstrip("/") for name in LAKE_FOLDERS]


def _sort_out(batch: pa.RecordBatch, root: Root, request: CatalogRequest, found: Found) -> None:
    formats = formats_of(batch["path"])
    taken = pc.is_in(formats, value_set=pa.array(request.formats))
    found.left_out.add_paths(batch["path"].filter(pc.invert(pc.fill_null(taken, False))))
    batch = batch.append_column("format", formats).filter(taken)
    loose = pc.equal(batch["format"], "files")
    if (shards := batch.filter(pc.invert(loose))).num_rows:
        found.shards.append(shards)
    files = batch.filter(loose)
    entries = files.append_column("image_id", files["path"])
    entries = entries.append_column("uri", pc.binary_join_element_wise(pa.scalar(root.uri), files["path"], "/"))
    entries = entries.append_column("key", pa.nulls(files.num_rows, pa.string()))
    entries = entries.append_column("offset", pa.nulls(files.num_rows, pa.int64()))
    rows = assign(entries, request.key_sources, request.selection, found.seen)
    found.rows.append(pa.Table.from_batches([rows]))


def _shards(root: Root, request: CatalogRequest, found: Found) -> Iterator[Shard]:
    sources, selection = request.key_sources, request.selection
    for batch in found.shards:
        for file in batch.to_pylist():
            if selection.wants(sources.of_shard(file["path"]), found.seen) is not False:
                yield Shard(
                    **file,
                    uri=f"{root.uri}/{file['path']}",
                    sources=sources,
                    selection=selection,
                    storage=request.storage,
                    image_column=request.image_column,
                    id_column=request.id_column,
                )


def _take(listing: ShardListing, found: Found) -> None:
    if listing.unreachable:
        raise ArchiveError(listing.unreachable)
    found.left_out.join(listing.left_out)
    found.seen.unreadable.join(listing.unreadable)
    for night in listing.nights:
        found.seen.add(night, None)
    for product in listing.products:
        found.seen.add(None, product)
    found.rows.append(listing.images)


def _manifest(request: CatalogRequest, found: Found) -> pa.Table:
    rows = number_duplicates(_checked_rows(request, found)).sort_by("image_id")
    failed = rows["error"].is_valid()
    status = pc.if_else(failed, pa.scalar(FAILED), pa.scalar(None, pa.string()))
    rows = set_column(rows, "offset", pc.if_else(failed, pa.scalar(None, pa.int64()), rows["offset"]))
    return set_column(rows, "status", status).select(MANIFEST.names).slice(0, request.limit)


def _check_something_selected(request: CatalogRequest, rows: pa.Table, found: Found) -> None:
    filters = {"archive.night": request.night, "archive.products": list(request.products)}
    used = [f"{name}={value}" for name, value in filters.items() if value]
    known = pc.and_(
        rows["night"].is_valid() if request.night else pa.scalar(True),
        rows["product"].is_valid() if request.products else pa.scalar(True),
    )
    if used and (found.seen.nights or found.seen.products):
        if not rows.num_rows or not pc.any(known).as_py():
            raise ArchiveError(
                f"no image of {request.uri} passes {' and '.join(used)}. Nights there: {_some(found.seen.nights)}; "
                f"products: {_some(found.seen.products)}; {rows.num_rows} images whose night or product is unknown."
            )
    elif not rows.num_rows:
        suffixes = ", ".join(f".{suffix}" for name in request.formats for suffix in SUFFIXES[name])
        others = "".join(f"\n  {line}" for line in found.left_out.lines()[:5])
        raise ArchiveError(
            f"no image in {request.uri}: looked for {suffixes} there and in its folders; {found.left_out.total} other "
            f"files were ignored. Check archive.uri and archive.format.{others}"
        )


def _check_keys(request: CatalogRequest, rows: pa.Table) -> None:
    looked_at = rows.filter(rows["lacks"].is_valid())
    lacking = pc.unique(looked_at["lacks"]).to_pylist()
    if len(lacking) != 1 or not lacking[0]:
        return
    example = looked_at["image_id"][0].as_py()
    if lacking[0] == TEMPLATE:
        raise ArchiveError(
            f"no path in {request.uri} fits {TEMPLATE} {request.template!r}; one of them is {example!r}. "
            "Write one {key} per part of the path that differs."
        )
    missing = lacking[0].split(", ")
    named = f"key{'s' if len(missing) > 1 else ''} {' and '.join(repr(key) for key in missing)}"
    raise ArchiveError(
        f"no image in {request.uri} has a value for the {named} of archive.group_by; one of them is "
        f"{example!r}. Put it into the path ({'/'.join(f'{key}=…' for key in missing)}/), describe the path with "
        f"archive.template ({'/'.join(f'{{{key}}}' for key in missing)}), or give it for all with archive.assume "
        f"({', '.join(f'{key}: …' for key in missing)}). Parquet columns or JSON fields of the name do as well. "
        "`patchead score FOLDER` takes a folder as it is."
    )


def _some(values: set[str], most: int = 10) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return (", ".join(sorted(values)[:most]) or "unknown") + more
