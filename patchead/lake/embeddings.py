"""Patch embeddings in the lake, one Arrow IPC file per unit of work, kept for as long as the encoder is the same.

A store's id is the encoder's id, with a digest of the views behind it where images are aligned.
``embeddings/<store_id>/units/<unit_id>.arrow`` holds the vectors and what is kept beside them,
``pending/<unit_id>.parquet`` the unit's receipts (its completion marker, written last) and ``index/<run_id>.parquet``
the receipts of a finished embed stage, which replace the pending ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from patchead.arrow_columns import keys
from patchead.batches import concurrently
from patchead.errors import LakeError, bad_value
from patchead.files import Folder, plain_name, undamaged
from patchead.schema import OK, RECEIPTS, SAMPLE_KEY, SCHEMA_VERSION, completed
from patchead.storage import Storage, join

_REMEDY = "Delete it and run again: its images are then embedded anew."
_OLD_COLUMNS = {name for name in RECEIPTS.names if name not in ("role", "turn", "guides_digest")}
_SAME_RECEIPT = (*SAMPLE_KEY, "content_hash", "embedding_uri", "row", "status")


class EmbeddingStore:
    """The embeddings of one encoder in one lake. Holds no connection, so it travels to the workers.

    ``encoder_id`` is the store's id, see the module.

    Several processes may write different units at once. Receipts keep file names, not URIs: a lake may be moved.
    """

    def __init__(self, lake_uri: str, storage: Storage, encoder_id: str) -> None:
        self.encoder_id = plain_name("encoder_id", encoder_id)
        root = join(lake_uri, "embeddings", encoder_id)
        self._units, self._pending, self._index = (
            Folder(join(root, name), storage) for name in ("units", "pending", "index")
        )

    def write_unit(
        self,
        unit_id: str,
        receipts: pa.Table,
        embeddings: np.ndarray | None,
        side_arrays: Mapping[str, np.ndarray] | None = None,
    ) -> pa.Table:
        """Store one unit: the vectors first, its receipts last.

        Args:
            unit_id: names the unit; the same id written again replaces it.
            receipts: RECEIPTS of every image of the unit, failed and reused ones included.
            embeddings: float16 (n, P, D), one for each receipt that is ok and has no ``embedding_uri``, in their
                order; None where there is none.
            side_arrays: more arrays (n, …) of the same images, by name; bool or float.

        Returns:
            The receipts with ``embedding_uri`` and ``row`` filled in.

        Raises:
            LakeError: the embeddings do not fit the receipts, or a file cannot be written.
        """
        name = f"{plain_name('unit_id', unit_id)}.arrow"
        fresh = pc.and_(pc.equal(receipts["status"], OK), pc.is_null(receipts["embedding_uri"]))
        fresh = pc.fill_null(fresh, False).combine_chunks()
        _check(embeddings, fresh.true_count)
        if embeddings is not None and len(embeddings):
            self._write_vectors(name, receipts["content_hash"].filter(fresh), embeddings, side_arrays or {})
        row = np.cumsum(np.asarray(fresh), dtype=np.int32) - np.int32(1)
        columns = {column: receipts[column] for column in RECEIPTS.names}
        columns["embedding_uri"] = pc.if_else(fresh, self._units.uri_of(name), receipts["embedding_uri"])
        columns["row"] = pc.if_else(fresh, pa.array(row), receipts["row"])
        filled = pa.table(columns, schema=RECEIPTS)
        self._write_receipts(self._pending, unit_id, filled)
        return filled

    def known(self) -> pa.Table:
        """RECEIPTS of every embedded image, one row for each `SAMPLE_KEY`.

        Only ok rows whose embedding file is there: an image whose file was deleted is not known, so it is embedded
        again. Rows of equal content may name the same vectors.

        Raises:
            LakeError: a receipt file is damaged, or the lake cannot be read.
        """
        # Pending before index: a run that ends meanwhile deletes pending files only after it has written its index.
        pending = self._read_receipts(self._pending, self._pending.names(".parquet"))
        index = self._read_receipts(self._index, self._index.names(".parquet"))
        receipts = pa.concat_tables([RECEIPTS.empty_table(), *(rows for _, rows in [*index, *pending])])
        there = pc.is_in(receipts["embedding_uri"], value_set=self._unit_uris())
        return _first_of_each(receipts.filter(pc.and_(pc.equal(receipts["status"], OK), there)), SAMPLE_KEY)

    def exists(self, uris: Sequence[str | None]) -> list[bool]:
        """Whether each embedding file of this store is there: one listing, no file is opened.

        Raises:
            LakeError: the folder cannot be listed.
        """
        return pc.is_in(pa.array(uris, pa.string()), value_set=self._unit_uris()).to_pylist()

    def consolidate(self, run_id: str, receipts: pa.Table, unit_ids: Iterable[str] = ()) -> None:
        """Write the receipts of a finished embed stage as one file, then delete the pending ones that it contains.

        Receipts that earlier runs have indexed are left out, so the index grows with new images only.

        Args:
            run_id: names the file; the same id again adds to it.
            receipts: what :meth:`write_unit` returned for every unit of the stage.
            unit_ids: units known to be in ``receipts`` as a whole: their pending files are not read again.

        Raises:
            LakeError: a file is damaged, cannot be written or cannot be deleted.
        """
        name = f"{plain_name('run_id', run_id)}.parquet"
        indexed = dict(self._read_receipts(self._index, self._index.names(".parquet")))
        own = indexed.pop(name, RECEIPTS.empty_table())
        earlier = pa.concat_tables([RECEIPTS.empty_table(), *indexed.values()])
        ok = receipts.select(RECEIPTS.names).filter(pc.equal(receipts["status"], OK))
        rows = _first_of_each(pa.concat_tables([own, ok]), _SAME_RECEIPT)
        self._write_receipts(self._index, run_id, rows.filter(pc.invert(_is_among(rows, earlier))))
        pending = set(self._pending.names(".parquet"))
        done = pending & {f"{unit_id}.parquet" for unit_id in unit_ids}
        for unit, left in self._read_receipts(self._pending, sorted(pending - done)):
            if pc.all(_is_among(left, receipts), min_count=0).as_py():
                done.add(unit)
        for _ in concurrently(self._pending.delete, done):
            pass

    def read(self, uri: str, rows: np.ndarray) -> np.ndarray:
        """Embeddings float16 (n, P, D) of ``rows`` (n,) of one file; a local file is mapped, a remote one read once.

        Raises:
            LakeError: the file is missing, damaged, of another encoder, or has no such row.
        """
        with self._opened(uri) as batch:
            return _rows(batch.column("embedding").to_numpy_ndarray(), rows, uri)

    def read_side_arrays(self, uri: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays that were written beside the embeddings of ``rows`` (n,), by name: (n, …) each.

        Raises:
            LakeError: as :meth:`read`.
        """
        with self._opened(uri) as batch:
            names = [name for name in batch.schema.names if name not in ("content_hash", "embedding")]
            return {name: _rows(_values(batch, name), rows, uri) for name in names}

    @contextmanager
    def _opened(self, uri: str) -> Iterator[pa.RecordBatch]:
        try:
            file = self._units.open(self._name(uri))
        except FileNotFoundError as exc:
            raise LakeError(
                f"{uri} is gone, although receipts name it. Run again: its images are then embedded anew."
            ) from exc
        with undamaged(uri, _REMEDY), file:
            reader = pa.ipc.open_file(file)
            written_by = (reader.schema.metadata or {}).get(b"encoder_id", b"").decode()
            if written_by != self.encoder_id:
                raise LakeError(f"{uri} was written by encoder {written_by!r}, not {self.encoder_id!r}. {_REMEDY}")
            yield reader.get_batch(0)

    def _write_vectors(
        self, name: str, content_hash: pa.ChunkedArray, embeddings: np.ndarray, side_arrays: Mapping[str, np.ndarray]
    ) -> None:
        columns: list[pa.Array] = [content_hash.combine_chunks()]
        fields = [pa.field("content_hash", pa.string())]
        for label, values in {"embedding": embeddings, **side_arrays}.items():
            if len(values) != len(embeddings):
                raise LakeError(f"{name}: {len(values)} rows of {label} beside {len(embeddings)} embeddings.")
            columns.append(_tensor(values))
            fields.append(pa.field(label, columns[-1].type, metadata={"dtype": str(values.dtype)}))
        metadata = {"encoder_id": self.encoder_id, "schema_version": str(SCHEMA_VERSION)}
        schema = pa.schema(fields, metadata=metadata)
        batch = pa.record_batch(columns, schema=schema)

        def fill(sink: pa.NativeFile) -> None:
            with pa.ipc.new_file(sink, schema) as writer:
                writer.write_batch(batch)

        self._units.write(name, fill)

    def _write_receipts(self, folder: Folder, name: str, receipts: pa.Table) -> None:
        prefix = f"{self._units.uri}/"
        uris = receipts["embedding_uri"]
        if not pc.all(pc.starts_with(uris, prefix), min_count=0).as_py():
            raise LakeError(f"{name}: a receipt names an embedding outside of {self._units.uri}.")
        stored = _with_uris(receipts, pc.utf8_slice_codeunits(uris, start=len(prefix)))
        folder.write(
            f"{name}.parquet",
            lambda sink: pq.write_table(stored, sink, compression="zstd", write_page_checksum=True),
        )

    def _read_receipts(self, folder: Folder, names: Iterable[str]) -> list[tuple[str, pa.Table]]:
        def read(name: str) -> tuple[str, pa.Table] | None:
            uri = folder.uri_of(name)
            try:
                file = folder.open(name)
            except FileNotFoundError:
                return None  # deleted since it was listed: its receipts are in an index now
            with undamaged(uri, _REMEDY), file:
                stored = pq.read_table(file, page_checksum_verification=True)
            if not _OLD_COLUMNS.issubset(stored.column_names):
                raise LakeError(f"{uri} does not have the columns of receipts. {_REMEDY}")
            stored = completed(stored, RECEIPTS)  # what an earlier version wrote lacks the columns that came later
            return name, _with_uris(stored, pc.binary_join_element_wise(self._units.uri, stored["embedding_uri"], "/"))

        return [found for found in concurrently(read, names) if found]

    def _unit_uris(self) -> pa.Array:
        return pa.array([self._units.uri_of(name) for name in self._units.names(".arrow")], pa.string())

    def _name(self, uri: str) -> str:
        folder, _, name = uri.rpartition("/")
        if folder != self._units.uri:
            raise LakeError(f"{uri} does not belong to the embeddings in {self._units.uri}.")
        return name


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
        raise LakeError(f"{uri} has {len(block)} embeddings, but row {wanted.max()} is asked for. {_REMEDY}")
    return block[wanted]


def _check(embeddings: np.ndarray | None, expected: int) -> None:
    count = 0 if embeddings is None else len(embeddings)
    if count != expected:
        raise LakeError(f"{count} embeddings for {expected} images without one.")
    if embeddings is not None and count and (embeddings.dtype != np.float16 or embeddings.ndim != 3):
        got = f"{embeddings.dtype} {embeddings.shape}"
        raise LakeError(bad_value("embeddings", got, "float16 of shape (images, patches, dimensions)"))


def _with_uris(receipts: pa.Table, uris: pa.ChunkedArray) -> pa.Table:
    return receipts.set_column(RECEIPTS.get_field_index("embedding_uri"), "embedding_uri", uris)


def _first_of_each(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The first row of every distinct combination of values in ``columns``; nulls count as equal."""
    numbered = rows.append_column("number", pa.array(np.arange(rows.num_rows)))
    first = numbered.group_by(list(columns)).aggregate([("number", "min")])["number_min"]
    return rows.take(np.sort(np.asarray(first)))


def _is_among(rows: pa.Table, others: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(keys(rows, _SAME_RECEIPT), value_set=keys(others, _SAME_RECEIPT))
