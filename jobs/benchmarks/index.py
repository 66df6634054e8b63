"""What does it cost to find out which images of a night the lake already holds? Before and now, a process each."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.index_night import ENCODER
from benchmarks.records import Record
from patchead.schema import OK, RECEIPTS, TO_EMBED, completed

_JOBS = Path(__file__).parent.parent
_PER_FILE = 64
_PRODUCTS, _STATIONS = 20, 5


def index(receipts: int, nights: int, images: int) -> list[Record]:
    """Seconds and peak memory to find a night of ``images`` images among ``receipts`` of earlier ``nights``.

    Half of the images are those of the last night, unchanged; a tenth of the others have content that an earlier
    night has under another name.
    """
    case = f"{receipts} receipts of {nights} nights, a night of {images}"
    with tempfile.TemporaryDirectory() as folder:
        _write_lake(Path(folder), receipts // nights, nights, images)
        found = {how: _run(folder, how) for how in ("before", "take-over", "now")}
    for key in ("unchanged", "known"):
        if found["before"][key] != found["now"][key]:
            raise RuntimeError(f"{key}: {found['before'][key]} images before, {found['now'][key]} now")
    figures = []
    for how, measured in found.items():
        name = "index of before taken over, once" if how == "take-over" else how
        figures.append((f"find the night, {name}", measured["find"], "s"))
        figures.append((f"peak memory of the process, {name}", measured["peak_bytes"] / 1e6, "MB"))
        if how != "take-over":
            figures.append((f"add the night, {name}", measured["add"], "s"))
    figures.append(("of the peak memory, Python and its libraries", found["now"]["idle_bytes"] / 1e6, "MB"))
    return [
        Record(benchmark="index", case=case, precision="", metric=metric, value=value, unit=unit)
        for metric, value, unit in figures
    ]


def _run(lake: str, how: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.index_night", lake, how]
    done = subprocess.run(command, cwd=_JOBS, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _write_lake(lake: Path, per_night: int, nights: int, images: int) -> None:
    """A lake with an index of before and empty embedding files; the night's samples; hashes of its new images."""
    root, rng = lake / "embeddings" / ENCODER, np.random.default_rng(0)
    for name in ("units", "index"):
        (root / name).mkdir(parents=True)
    columns = [field for field in RECEIPTS if field.name not in ("role", "turn", "guides_digest")]
    for night in range(nights):
        rows = _night(night, per_night, rng)
        for unit in pc.unique(rows["embedding_uri"]).to_pylist():
            (root / "units" / unit).touch()
        stored = rows.select([field.name for field in columns])
        path = root / "index" / f"run{night:04d}.parquet"
        pq.write_table(stored, path, compression="zstd", write_page_checksum=True)
    half = images // 2
    last = rows.slice(0, half).select(["image_id", "etag", "size"])
    new = _night(nights, half, rng)
    pq.write_table(
        completed(pa.concat_tables([last, new.select(last.column_names)]), TO_EMBED), lake / "wanted.parquet"
    )
    known = rows.slice(half, half // 10)["content_hash"].to_pylist()
    hashes = [*known, *new["content_hash"].to_pylist()[len(known) :]]
    pq.write_table(pa.table({"content_hash": hashes}), lake / "hashes.parquet")


def _night(night: int, n: int, rng: np.random.Generator) -> pa.Table:
    """Stored receipts of one night, group by group."""
    date = np.datetime64("2026-01-01") + night
    text = rng.integers(0, 256, (n, 16), np.uint8).tobytes().hex()
    hashes = pa.array([text[i : i + 32] for i in range(0, len(text), 32)])
    groups = _PRODUCTS * _STATIONS
    ids = [
        f"product=p{group % _PRODUCTS:02d}/station={group // _PRODUCTS}/night={date}/{i:07d}.png"
        for i in range(n)
        for group in [i * groups // n]
    ]
    columns = {
        "image_id": pa.array(ids),
        "etag": hashes,
        "size": pa.repeat(pa.scalar(200_000, pa.int64()), n),
        "content_hash": hashes,
        "embedding_uri": pa.array(
            [f"{text[32 * (i // _PER_FILE) : 32 * (i // _PER_FILE + 1)]}.arrow" for i in range(n)]
        ),
        "row": pa.array([i % _PER_FILE for i in range(n)], pa.int32()),
        "status": pa.repeat(OK, n),
    }
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in RECEIPTS], schema=RECEIPTS)
