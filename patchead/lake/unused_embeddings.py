"""Embedding files that no kept night needs: of nights long past, of encoders no longer used, and without a receipt.

A file is needed where the content of one of its images was published in a kept night under its encoder, where an
accepted run names it, and as a prompt of an encoder that is in use. What is not needed leaves the index before its file
goes: a run that begins meanwhile does not find it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.files import Folder
from patchead.lake import index_part
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.run_tables import RECEIPTS_FILE, read_table
from patchead.lake.stored_files import DAY_S, Stored
from patchead.lake.tables import read_rows
from patchead.schema import RECEIPTS
from patchead.storage import Storage, join

_PREFIX_DIGITS = 16


@dataclass(frozen=True)
class Needed:
    """Hold what must stay: ``contents`` of kept nights by encoder, uint64 (n,), sorted; ``names`` of accepted files."""

    contents: dict[str, np.ndarray]
    names: frozenset[str]

    def of_store(self, store_id: str) -> np.ndarray | None:
        """Give the contents that are needed of a store; None where no kept night has used its encoder."""
        found = [v for key, v in self.contents.items() if store_id == key or store_id.startswith(f"{key}-")]
        return np.unique(np.concatenate(found)) if found else None


def needed(lake_uri: str, storage: Storage, nights: int) -> Needed:
    """Read what the newest ``nights`` published nights and the accepted runs need.

    Raises:
        LakeError: a table, or the receipts of an accepted run, cannot be read.
    """
    every = pc.unique(read_rows(lake_uri, storage, "scores", ["night"])["night"]).drop_null().to_pylist()
    contents = dict[str, list[np.ndarray]]()
    for night in sorted(every)[-nights:]:
        _take(read_rows(lake_uri, storage, "scores", ["encoder_id", "content_hash"], [("night", "=", night)]), contents)
    runs = set(read_rows(lake_uri, storage, "accepted", ["run_id"])["run_id"].to_pylist())
    names = [_files_of(Folder(join(lake_uri, "runs", run_id), storage)) for run_id in runs]
    return Needed({key: np.unique(np.concatenate(v)) for key, v in contents.items()}, frozenset[str]().union(*names))


def unused_units(store: EmbeddingStore, units: Iterable[Stored], what: Needed, older_than_s: float) -> list[Stored]:
    """Find the embedding files of one store that nothing needs.

    Args:
        store: whose index is read, a part at a time.
        units: its embedding files, listed before.
        what: is needed.
        older_than_s: seconds; a younger file stays, as a run that has not published may go on with it.

    Raises:
        LakeError: the index is damaged or cannot be read.
    """
    contents, known, kept = what.of_store(store.encoder_id), set[str](), set(what.names)
    read = partial(index_part.read_receipts, store.index.folder)
    for receipts in store.index.over_parts(lambda part: read(f"{part}{index_part.RECEIPTS_FILE}")):
        _sort_out(receipts, contents, known, kept)
    for receipts in store.unsettled():
        _sort_out(receipts, contents, known, kept)
    return [f for f in units if f.name not in kept and f.age_s > (older_than_s if f.name in known else DAY_S)]


def forget_units(store: EmbeddingStore, names: Collection[str]) -> None:
    """Take the receipts of these files out of a store's index.

    Raises:
        LakeError: the index is damaged, or cannot be read or written.
    """
    store.settle()
    gone, folder = pa.array(sorted(names), pa.string()), store.index.folder
    for part in store.index.parts():
        try:
            receipts = index_part.read_receipts(folder, f"{part}{index_part.RECEIPTS_FILE}")
        except FileNotFoundError:
            continue  # another process has joined it with others: the next time
        stay = receipts.filter(pc.invert(pc.is_in(receipts["embedding_uri"], value_set=gone)))
        if stay.num_rows < receipts.num_rows:
            store.index.add("kept", store.index.with_folder(stay))
            index_part.delete_part(folder, part)


def _sort_out(receipts: pa.Table, contents: np.ndarray | None, known: set[str], kept: set[str]) -> None:
    """Note the files that receipts know, and those of them that are needed."""
    names = receipts["embedding_uri"]
    known.update(pc.unique(names).drop_null().to_pylist())
    if contents is None:
        return
    wanted = pa.array(np.isin(_prefixes(receipts["content_hash"]), contents))
    wanted = pc.or_(wanted, pc.is_valid(receipts["role"]).combine_chunks())
    kept.update(pc.unique(names.filter(wanted)).drop_null().to_pylist())


def _take(rows: pa.Table, contents: dict[str, list[np.ndarray]]) -> None:
    known = rows.filter(pc.and_(pc.is_valid(rows["content_hash"]), pc.is_valid(rows["encoder_id"])))
    for encoder in pc.unique(known["encoder_id"]).to_pylist():
        of_it = known.filter(pc.equal(known["encoder_id"], encoder))
        contents.setdefault(encoder, []).append(np.unique(_prefixes(of_it["content_hash"])))


def _files_of(folder: Folder) -> frozenset[str]:
    found = read_table(folder, RECEIPTS_FILE, RECEIPTS)
    uris = [] if found is None else pc.unique(found[0]["embedding_uri"]).drop_null().to_pylist()
    return frozenset(uri.rpartition("/")[2] for uri in uris)


def _prefixes(hashes: pa.ChunkedArray) -> np.ndarray:
    """The first 64 bits of hashes in hex digits: uint64 (n,)."""
    digits = pc.utf8_slice_codeunits(pc.fill_null(hashes, ""), 0, _PREFIX_DIGITS).to_pylist()
    return np.array([int(text or "0", 16) for text in digits], np.uint64)
