"""Patch embeddings in the lake, one Arrow IPC file per unit of work, kept for as long as the encoder is the same.

A store's id is the encoder's id, with a digest of the views behind it where images are aligned.
``embeddings/<store_id>/units/<unit_id>-<images>.arrow`` holds the vectors and the side arrays,
``pending/<unit_id>.parquet`` the unit's receipts (its completion marker, written last) and ``parts/`` the index of
finished embed stages, whose receipts replace the pending ones. ``index/<run_id>.parquet`` is the index as earlier
versions wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import digest
from patchead.batches import concurrently, stream_batches
from patchead.errors import DamagedFileError, LakeError, bad_value
from patchead.files import Folder, plain_name, undamaged
from patchead.lake import index_part
from patchead.lake.checked_batches import read_checked, write_checked
from patchead.lake.index_part import REMEDY
from patchead.lake.receipt_index import ReceiptIndex
from patchead.schema import OK, RECEIPTS, SAMPLE_KEY, SCHEMA_VERSION
from patchead.storage import Storage, join

_UNITS_AT_ONCE = 4096
#: Local files whose checksum this process has compared, with their time and size then.
_VERIFIED: dict[str, tuple[int, int]] = {}


class EmbeddingStore:
    """Write and read the embeddings of one encoder in one lake. Holds no connection, so it travels to the workers.

    ``encoder_id`` is the store's id, see the module.

    Several processes may write different units at once. Receipts keep file names, not URIs: a lake may be moved.
    """

    def __init__(self, lake_uri: str, storage: Storage, encoder_id: str) -> None:
        self.encoder_id = plain_name("encoder_id", encoder_id)
        root = join(lake_uri, "embeddings", encoder_id)
        self._units, self._pending, self._old_index, parts = (
            Folder(join(root, name), storage) for name in ("units", "pending", "index", "parts")
        )
        self.index = ReceiptIndex(parts, self._units)

    def write_unit(
        self,
        unit_id: str,
        receipts: pa.Table,
        embeddings: np.ndarray | None,
        side_arrays: Mapping[str, np.ndarray] | None = None,
    ) -> pa.Table:
        """Store one unit: the vectors first, its receipts last.

        Args:
            unit_id: names the unit; its receipts, written again, replace those before. The file of its vectors is
                named after their images too: a try in which others failed writes another file, so that receipts that
                are in the index already stay true.
            receipts: RECEIPTS of every image of the unit, failed and reused ones included.
            embeddings: float16 (n, P, D), one for each receipt that is ok and has no ``embedding_uri``, in their
                order; None where there is none.
            side_arrays: more arrays (n, …) of the same images, by name; bool or float.

        Returns:
            The receipts with ``embedding_uri`` and ``row`` filled in.

        Raises:
            LakeError: the embeddings do not fit the receipts, or a file cannot be written.
        """
        plain_name("unit_id", unit_id)
        fresh = pc.and_(pc.equal(receipts["status"], OK), pc.is_null(receipts["embedding_uri"]))
        fresh = pc.fill_null(fresh, False).combine_chunks()
        _check(embeddings, fresh.true_count)
        name = f"{unit_id}-{digest([receipts.filter(fresh)], [*SAMPLE_KEY, 'content_hash'])[:8]}.arrow"
        if embeddings is not None and len(embeddings):
            self._write_vectors(name, receipts["content_hash"].filter(fresh), embeddings, side_arrays or {})
        row = np.cumsum(np.asarray(fresh), dtype=np.int32) - np.int32(1)
        columns = {column: receipts[column] for column in RECEIPTS.names}
        columns["embedding_uri"] = pc.if_else(fresh, self._units.uri_of(name), receipts["embedding_uri"])
        columns["row"] = pc.if_else(fresh, pa.array(row), receipts["row"])
        filled = pa.table(columns, schema=RECEIPTS)
        stored = self.index.without_folder(filled)
        self._pending.write(f"{unit_id}.parquet", lambda sink: index_part.write_receipts(stored, sink))
        return filled

    def settle(self) -> None:
        """Bring into the index what is not in it: pending receipts of killed runs, and the index of earlier versions.

        Receipts of a run that goes on meanwhile may be among them; it finds them in the index instead. In memory are a
        few thousand units, or one run of an earlier version.

        Raises:
            LakeError: a file is damaged, or the lake cannot be read or written.
        """
        for names in stream_batches(self._pending.names(".parquet"), _UNITS_AT_ONCE):
            self._move(self._pending, names, "pending")
        for name in self._old_index.names(".parquet"):
            self._move(self._old_index, [name], name.removesuffix(".parquet"))

    def unsettled(self) -> Iterator[pa.Table]:
        """Read the receipts that are not in the index yet, see `settle`; with embedding file names.

        Raises:
            LakeError: a file is damaged, or the lake cannot be read.
        """
        for folder in (self._pending, self._old_index):
            for names in stream_batches(folder.names(".parquet"), _UNITS_AT_ONCE):
                yield pa.concat_tables(concurrently(partial(_receipts_in, folder), names))

    def consolidate(self, run_id: str, receipts: pa.Table, unit_ids: Iterable[str]) -> None:
        """Add the receipts of an embed stage to the index, then delete the pending ones that they are.

        Args:
            run_id: names the part of the index.
            receipts: what :meth:`write_unit` returned for every unit of the stage.
            unit_ids: of these units.

        Raises:
            LakeError: a file is damaged, cannot be written or cannot be deleted.
        """
        self.index.add(plain_name("run_id", run_id), receipts)
        self._forget(self._pending, (f"{unit_id}.parquet" for unit_id in unit_ids))
        self.index.join_small_parts()

    def read(self, uri: str, rows: np.ndarray) -> np.ndarray:
        """Read embeddings float16 (n, P, D) of ``rows`` (n,) of one file: a local one mapped, a remote one read once.

        Raises:
            LakeError: the file is missing, damaged, of another encoder, or has no such row.
        """
        with self._opened(uri) as batch:
            return _rows(batch.column("embedding").to_numpy_ndarray(), rows, uri)

    def damage(self, uri: str) -> str | None:
        """Compare one file with its checksum: None if it is as it was written, else what is wrong.

        Raises:
            LakeError: it cannot be read.
        """
        _VERIFIED.pop(uri, None)
        try:
            with self._opened(uri):
                return None
        except DamagedFileError as exc:
            return str(exc)

    def set_aside(self, uri: str) -> str | None:
        """Move a damaged file of this store out of the way, of an index part all three; None if it is none of these.

        Its images are embedded again: receipts without a file are not taken.

        Raises:
            LakeError: it cannot be moved.
        """
        for folder in (self._units, self._pending, self._old_index, self.index.folder):
            if uri.startswith(f"{folder.uri}/"):
                name = uri.removeprefix(f"{folder.uri}/")
                names = index_part.files_of(name) if folder is self.index.folder else [name]
                moved = [folder.set_aside(each) for each in names]
                return moved[0]
        return None

    def read_side_arrays(self, uri: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Read the side arrays that were written with the embeddings of ``rows`` (n,), by name: (n, …) each.

        Raises:
            LakeError: as :meth:`read`.
        """
        with self._opened(uri) as batch:
            names = [name for name in batch.schema.names if name not in ("content_hash", "embedding")]
            return {name: _rows(_values(batch, name), rows, uri) for name in names}

    def read_side_array(self, uri: str, rows: np.ndarray, name: str) -> np.ndarray | None:
        """Read one side array of ``rows`` (n,) and, of a remote file, nothing else: (n, …), or None where it has none.

        Raises:
            LakeError: the file is missing or damaged, or has no such row.
        """
        try:
            file = self._units.open_parts(self.index.name_of(uri))
        except FileNotFoundError as exc:
            raise DamagedFileError(f"{uri} is gone, although receipts name it. {REMEDY}", uri) from exc
        with undamaged(uri, REMEDY), file:
            place = pa.ipc.open_file(file).schema.get_field_index(name)
            if place < 0:
                return None
            options = pa.ipc.IpcReadOptions(included_fields=[place])
            return _rows(_values(pa.ipc.open_file(file, options=options).get_batch(0), name), rows, uri)

    @contextmanager
    def _opened(self, uri: str) -> Iterator[pa.RecordBatch]:
        try:
            file = self._units.open(self.index.name_of(uri))
        except FileNotFoundError as exc:
            raise DamagedFileError(
                f"{uri} is gone, although receipts name it. Run again: its images are then embedded anew.", uri
            ) from exc
        with undamaged(uri, REMEDY), file:
            reader = pa.ipc.open_file(file)
            written_by = (reader.schema.metadata or {}).get(b"encoder_id", b"").decode()
            if written_by != self.encoder_id:
                text = f"{uri} was written by encoder {written_by!r}, not {self.encoder_id!r}. {REMEDY}"
                raise DamagedFileError(text, uri)
            stamp = self._units.stamp(self.index.name_of(uri))
            yield read_checked(reader, 0, verify=stamp is None or _VERIFIED.get(uri) != stamp)
            if stamp is not None:
                _VERIFIED[uri] = stamp

    def _write_vectors(
        self, name: str, content_hash: pa.ChunkedArray, embeddings: np.ndarray, side_arrays: Mapping[str, np.ndarray]
    ) -> None:
        columns: list[pa.Array] = [content_hash.combine_chunks()]
        fields = [pa.field("content_hash", pa.string())]
        for label, values in {"embedding": embeddings, **side_arrays}.items():
            if len(values) != len(embeddings):
                raise LakeError(f"{name}: {len(values)} rows of {label} for {len(embeddings)} embeddings.")
            columns.append(_tensor(values))
            fields.append(pa.field(label, columns[-1].type, metadata={"dtype": str(values.dtype)}))
        metadata = {"encoder_id": self.encoder_id, "schema_version": str(SCHEMA_VERSION)}
        schema = pa.schema(fields, metadata=metadata)
        batch = pa.record_batch(columns, schema=schema)

        def fill(sink: pa.NativeFile) -> None:
            with pa.ipc.new_file(sink, schema) as writer:
                write_checked(writer, batch)

        self._units.write(name, fill)

    def _move(self, folder: Folder, names: Sequence[str], label: str) -> None:
        """Move the receipts of some files into the index."""

        found = pa.concat_tables(concurrently(partial(_receipts_in, folder), names))
        self.index.add(label, self.index.with_folder(found))
        self._forget(folder, names)

    def _forget(self, folder: Folder, names: Iterable[str]) -> None:
        for _ in concurrently(folder.delete, names):
            pass


def _receipts_in(folder: Folder, name: str) -> pa.Table:
    try:
        return index_part.read_receipts(folder, name)
    except FileNotFoundError:
        return RECEIPTS.empty_table()  # deleted since it was listed: they are in the index now


def _tensor(values: np.ndarray) -> pa.FixedShapeTensorArray:
    """(n, …), at least two-dimensional, as tensors of one size; bools as bytes, as Arrow has no tensors of bits."""
    plain = values.astype(np.uint8) if values.dtype == bool else values
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(plain))


def _values(batch: pa.RecordBatch, name: str) -> np.ndarray:
    dtype = batch.schema.field(name).metadata[b"dtype"].decode()
    return batch.column(name).to_numpy_ndarray().astype(dtype, copy=False)


def _rows(block: np.ndarray, rows: np.ndarray, uri: str) -> np.ndarray:
    wanted = np.asarray(rows, dtype=np.int64)
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(block)):
        raise LakeError(f"{uri} has {len(block)} embeddings, but row {wanted.max()} is asked for. {REMEDY}")
    if wanted.size and (np.diff(wanted) == 1).all():
        return block[wanted[0] : wanted[-1] + 1]  # as it lies in the file: not copied
    return block[wanted]


def _check(embeddings: np.ndarray | None, expected: int) -> None:
    count = 0 if embeddings is None else len(embeddings)
    if count != expected:
        raise LakeError(f"{count} embeddings for {expected} images without one.")
    if embeddings is not None and count and (embeddings.dtype != np.float16 or embeddings.ndim != 3):
        got = f"{embeddings.dtype} {embeddings.shape}"
        raise LakeError(bad_value("embeddings", got, "float16 of shape (images, patches, dimensions)"))
