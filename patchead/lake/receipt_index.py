"""The index of one store's embeddings: which samples it holds. What is read of it follows from what is looked for.

Every embed stage adds one part (`index_part`) with its own receipts; small parts are joined now and then. A sample is
looked up by its id, etag and size in the folders of the archive that are asked for, or by its content (`Contents`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import log2
from operator import methodcaller
from typing import NamedTuple, TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import first_of_each, keys, values
from patchead.batches import concurrently
from patchead.errors import LakeError
from patchead.files import Folder
from patchead.lake import index_part
from patchead.schema import OK, RECEIPTS, SAMPLE_KEY

_AT_ONCE = 4  # parts that are searched together: each holds one row group
_JOINED = 8
_LARGE_BYTES = 1 << 20  # about 25,000 receipts: such a part stays as it is

_plain = methodcaller("as_py")

Found = TypeVar("Found")


@dataclass(frozen=True)
class ReceiptIndex:
    """Read and write the index of one store. Holds no connection, so that it travels to the workers.

    Several processes may add to it and join parts at once: parts are never changed, and a part goes only when its
    receipts are in another one.
    """

    folder: Folder
    units: Folder
    """Where the embedding files are. Stored receipts keep their names, not URIs: a lake may be moved."""

    def parts(self) -> list[str]:
        """List the names of the parts.

        Raises:
            LakeError: the folder cannot be listed.
        """
        suffix = index_part.RECEIPTS_FILE
        return [name.removesuffix(suffix) for name in self.folder.names(suffix)]

    def add(self, label: str, receipts: pa.Table) -> None:
        """Add a part with those receipts that are ok, named ``label`` and a number.

        Receipts that are added twice do no harm: a sample is found once.

        Raises:
            LakeError: the part cannot be written.
        """
        ok = receipts.filter(pc.equal(receipts["status"], OK)).select(RECEIPTS.names)
        if ok.num_rows:
            index_part.write_part(self.folder, f"{label}-{uuid4().hex[:12]}", self.without_folder(ok))

    def unchanged(self, wanted: pa.Table) -> pa.Table:
        """Find RECEIPTS of the samples ``wanted``, TO_EMBED rows, that the store holds: one for each, in no order.

        A sample without an etag may have changed and is not looked for; one whose embedding file was deleted is not
        held. Of the index, only receipts in the folders of ``wanted`` are read, a row group at a time.

        Raises:
            LakeError: a part is damaged, or the lake cannot be read.
        """
        dated = wanted.filter(pc.is_valid(wanted["etag"])).select(SAMPLE_KEY).sort_by("image_id").combine_chunks()
        if not dated.num_rows:
            return RECEIPTS.empty_table()
        asked = _Asked(values(dated["image_id"]), keys(dated, SAMPLE_KEY))
        folders = pc.unique(index_part.folders_of(asked.image_ids))
        found = self.over_parts(lambda part: list(self._matches(part, folders, asked)))
        held = self.with_folder(pa.concat_tables([RECEIPTS.empty_table(), *(rows for each in found for rows in each)]))
        uris = pc.unique(held["embedding_uri"])
        there = [uri for uri, exists in zip(uris, self.exist(uris.to_pylist()), strict=True) if exists]
        held = held.filter(pc.is_in(held["embedding_uri"], value_set=pa.array(there, pa.string())))
        return first_of_each(held, SAMPLE_KEY)

    def exist(self, uris: Iterable[str]) -> Iterator[bool]:
        """Tell whether each embedding file is there, by one request each.

        Raises:
            LakeError: it cannot be told.
        """
        return concurrently(lambda uri: self.units.exists(self.name_of(uri)), uris)

    def over_parts(self, read: Callable[[str], Found], at_once: int = _AT_ONCE) -> Iterator[Found]:
        """Yield ``read`` of each part; what is joined meanwhile is read from the part that it is in now.

        Raises:
            LakeError: as ``read``, or the folder cannot be listed.
        """
        done: set[str] = set()
        while names := [name for name in self.parts() if name not in done]:
            done.update(names)
            gone = False
            for result in concurrently(partial(_unless_gone, read), names, at_once):
                if result is not None:
                    yield result
                gone = gone or result is None
            if not gone:
                return

    def join_small_parts(self) -> None:
        """Join small parts of about one size, eight of them at a time, so that many runs do not leave many parts.

        In memory are eight parts of less than 1 MB each, compressed: up to 200,000 receipts.

        Raises:
            LakeError: a part is damaged, or the lake cannot be read or written.
        """
        while several := _of_one_size(self.folder.sizes(index_part.RECEIPTS_FILE)):
            names = [name.removesuffix(index_part.RECEIPTS_FILE) for name in several]
            try:
                tables = [index_part.read_receipts(self.folder, name) for name in several]
            except FileNotFoundError:
                return  # another run is joining them
            together = first_of_each(pa.concat_tables(tables), [*SAMPLE_KEY, "embedding_uri", "row"])
            self.add("joined", self.with_folder(together))
            for name in names:
                index_part.delete_part(self.folder, name)

    def name_of(self, uri: str) -> str:
        """Cut the name of an embedding file from its URI.

        Raises:
            LakeError: it is of another store.
        """
        folder, _, name = uri.rpartition("/")
        if folder != self.units.uri:
            raise LakeError(f"{uri} does not belong to the embeddings in {self.units.uri}.")
        return name

    def with_folder(self, receipts: pa.Table) -> pa.Table:
        """Give stored receipts the URIs of their embedding files."""
        return _set_uris(receipts, pc.binary_join_element_wise(self.units.uri, receipts["embedding_uri"], "/"))

    def without_folder(self, receipts: pa.Table) -> pa.Table:
        """Turn receipts into what is stored.

        Raises:
            LakeError: one names an embedding file of another store.
        """
        prefix, uris = f"{self.units.uri}/", receipts["embedding_uri"]
        if not pc.all(pc.starts_with(uris, prefix), min_count=0).as_py():
            raise LakeError(f"a receipt names an embedding outside of {self.units.uri}.")
        return _set_uris(receipts, pc.utf8_slice_codeunits(uris, start=len(prefix)))

    def _matches(self, part: str, folders: pa.Array, asked: _Asked) -> Iterator[pa.Table]:
        """Stored receipts of one part whose samples are asked for."""
        groups = index_part.row_groups_of(self.folder, part, folders)
        if not groups:
            return
        with index_part.opened(self.folder, part) as file:
            for group in groups:
                near = asked.between(*index_part.first_and_last_id(file, group))
                if len(near):
                    rows = index_part.read_group(file, group)
                    yield rows.filter(pc.is_in(keys(rows, SAMPLE_KEY), value_set=near))


class _Asked(NamedTuple):
    """Image ids, ascending, and keys of the samples that are looked for."""

    image_ids: pa.Array
    keys: pa.Array

    def between(self, first: str | None, last: str | None) -> pa.Array:
        """Keys of the samples from one id to another, both included; None is no limit."""
        start = 0 if first is None else bisect_left(self.image_ids, first, key=_plain)
        stop = len(self.keys) if last is None else bisect_right(self.image_ids, last, key=_plain)
        return self.keys[start:stop]


def _of_one_size(sizes: dict[str, int]) -> list[str]:
    """Eight small files of about one size, within a factor of eight; none where there are fewer of every size."""
    by_size: dict[int, list[str]] = {}
    for name, size in sorted(sizes.items()):
        if size < _LARGE_BYTES:
            by_size.setdefault(int(log2(max(size, 1))) // 3, []).append(name)
    return next((names[:_JOINED] for names in by_size.values() if len(names) >= _JOINED), [])


def _unless_gone(read: Callable[[str], Found], part: str) -> Found | None:
    try:
        return read(part)
    except FileNotFoundError:
        return None


def _set_uris(receipts: pa.Table, uris: pa.ChunkedArray) -> pa.Table:
    return receipts.set_column(receipts.schema.get_field_index("embedding_uri"), "embedding_uri", uris)
