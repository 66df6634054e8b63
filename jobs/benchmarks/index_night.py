"""Find one night among earlier receipts, in a process of its own: LAKE HOW; prints seconds and bytes as JSON.

HOW is ``before`` (as versions without `ReceiptIndex` did it), ``take-over`` (of an index of before) or ``now``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from patchead.arrow_columns import first_of_each, keys
from patchead.batches import concurrently
from patchead.lake.contents import Contents
from patchead.lake.embeddings import EmbeddingStore
from patchead.schema import OK, RECEIPTS
from patchead.storage import Storage

ENCODER = "vit"
_IMAGE = ("image_id", "etag", "size")
_RECEIPT = (*_IMAGE, "content_hash", "embedding_uri", "row", "status")
Found = dict[str, float]


def main(lake: str, how: str) -> None:
    wanted, hashes = pq.read_table(f"{lake}/wanted.parquet"), pq.read_table(f"{lake}/hashes.parquet")
    idle = _peak_bytes()
    ways: dict[str, Callable[[str, pa.Table, list[str]], Found]] = {
        "before": before,
        "take-over": take_over,
        "now": now,
    }
    found = ways[how](lake, wanted, hashes["content_hash"].to_pylist())
    print(json.dumps(found | {"idle_bytes": idle, "peak_bytes": _peak_bytes()}))


def now(lake: str, wanted: pa.Table, hashes: list[str]) -> Found:
    """Look the night up by id and by content, and add its receipts."""
    store = EmbeddingStore(lake, Storage(), ENCODER)
    began = time.perf_counter()
    store.settle()
    unchanged = store.index.unchanged(wanted)
    by_id = time.perf_counter()
    contents = Contents(store.index)
    known = sum(contents.find(content, None) is not None for content in hashes)
    by_content = time.perf_counter()
    store.consolidate("tonight", _new(lake, hashes), [])
    return {
        "unchanged": unchanged.num_rows,
        "known": known,
        "find": by_content - began,
        "by_id": by_id - began,
        "add": time.perf_counter() - by_content,
    }


def take_over(lake: str, wanted: pa.Table, hashes: list[str]) -> Found:
    """Bring the index of before into the form of now."""
    began = time.perf_counter()
    EmbeddingStore(lake, Storage(), ENCODER).settle()
    return {"find": time.perf_counter() - began}


def before(lake: str, wanted: pa.Table, hashes: list[str]) -> Found:
    """The same, as it was: every receipt is read, matched with a listing of all embedding files, and sorted."""
    root = Path(lake) / "embeddings" / ENCODER
    began = time.perf_counter()
    receipts = _all_receipts(root)
    units = pa.array([str(path) for path in sorted((root / "units").iterdir())], pa.string())
    there = pc.and_(pc.equal(receipts["status"], OK), pc.is_in(receipts["embedding_uri"], value_set=units))
    known = first_of_each(receipts.filter(there), _IMAGE).sort_by("content_hash").combine_chunks()
    place = pc.index_in(keys(wanted, _IMAGE), value_set=keys(known, _IMAGE))
    unchanged = known.take(place.filter(pc.is_valid(place)))
    by_id = time.perf_counter()
    fixed = known["content_hash"].combine_chunks().cast(pa.binary()).cast(pa.binary(32))
    every = np.frombuffer(fixed.buffers()[1], "S32")
    places = [int(np.searchsorted(every, content.encode())) for content in hashes]
    hits = sum(p < len(every) and every[p] == content.encode() for p, content in zip(places, hashes, strict=True))
    by_content = time.perf_counter()
    earlier, new = _all_receipts(root), _new(lake, hashes).select(receipts.column_names)
    fresh = new.filter(pc.invert(pc.is_in(keys(new, _RECEIPT), value_set=keys(earlier, _RECEIPT))))
    pq.write_table(fresh, root / "tonight.parquet", compression="zstd", write_page_checksum=True)
    return {
        "unchanged": unchanged.num_rows,
        "known": hits,
        "find": by_content - began,
        "by_id": by_id - began,
        "add": time.perf_counter() - by_content,
    }


def _all_receipts(root: Path) -> pa.Table:
    def read(path: Path) -> pa.Table:
        stored = pq.read_table(path, page_checksum_verification=True)
        uris = pc.binary_join_element_wise(str(root / "units"), stored["embedding_uri"], "/")
        return stored.set_column(stored.column_names.index("embedding_uri"), "embedding_uri", uris)

    return pa.concat_tables(concurrently(read, sorted((root / "index").iterdir())))


def _new(lake: str, hashes: list[str]) -> pa.Table:
    """Receipts of the night's new images."""
    n, uri = len(hashes), f"{lake}/embeddings/{ENCODER}/units/tonight.arrow"
    columns = {
        "image_id": pa.array([f"product=new/night=2027-01-01/{i:06d}.png" for i in range(n)]),
        "etag": pa.array(hashes),
        "content_hash": pa.array(hashes),
        "embedding_uri": pa.repeat(uri, n),
        "row": pa.array(range(n), pa.int32()),
        "status": pa.repeat(OK, n),
    }
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in RECEIPTS], schema=RECEIPTS)


def _peak_bytes() -> int:
    # Not getrusage: its maximum begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
