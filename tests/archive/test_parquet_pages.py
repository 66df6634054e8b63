"""Pages of Parquet: a small file does not become gigabytes, whatever it announces."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patchead.archive.parquet import read_parquet
from patchead.archive.parquet_pages import chunks_of, page_header
from patchead.errors import ArchiveError
from tests.helpers.sample_files import png

MIB = 1 << 20
SIZES = ("data_page_offset", "total_compressed_size", "total_uncompressed_size")


def written(images: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    ids = [str(number) for number in range(len(images))]
    pq.write_table(pa.table({"id": ids, "image": images}), sink, store_schema=False, **options)
    return sink.getvalue()


def read(data: bytes, count: int, **limits: int) -> dict[int, bytes | ArchiveError]:
    keys = [str(number) for number in range(count)]
    return dict(read_parquet(io.BytesIO(data), keys, image_column="image", id_column=None, **limits))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_headers_lead_from_page_to_page_and_their_sizes_are_those_of_the_footer(version: str, codec: str) -> None:
    rng = np.random.default_rng(0)
    data = written(
        [rng.bytes(3000) if number % 3 else None for number in range(500)],
        compression=codec,
        data_page_version=version,
        data_page_size=20_000,
        write_batch_size=5,
        use_dictionary=["id"],
        write_page_checksum=True,
    )
    footer = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    ((_, chunk),) = chunks_of(io.BytesIO(data))
    assert chunk[:4] == ("image", *(getattr(footer.column(1), name) for name in SIZES))
    place, total, pages = chunk.start, 0, 0
    while place < chunk.end:
        page = page_header(data[place:])
        assert page is not None
        place, total, pages = place + page.header + page.packed, total + page.header + page.unpacked, pages + 1
    assert place == chunk.end
    assert total == chunk.unpacked
    assert pages > 30
    assert page_header(data[place - 20 : place - 10]) is None
    assert read(data, 500, bytes_in_flight=1000).keys() == set(range(500))  # encoded pictures do not inflate


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_page_that_inflates_is_refused_before_it_is_unpacked(dictionary: bool) -> None:
    data = written([png(), bytes(30 * MIB)], compression="zstd", use_dictionary=dictionary, row_group_size=1)
    assert len(data) < 33_000
    assert len(read(data, 2)[1]) == 30 * MIB
    before = pa.total_allocated_bytes()
    found = read_parquet(io.BytesIO(data), ["0", "1"], image_column="image", id_column=None, bytes_in_flight=MIB)
    assert next(found) == (0, png())  # what comes before stands
    with pytest.raises(ArchiveError, match=r"a page of \d+ bytes unpacks to 3145\d+, above `bytes_in_flight` 1048576"):
        next(found)
    assert pa.total_allocated_bytes() - before < MIB


def test_a_value_above_max_bytes_is_an_error_of_its_row() -> None:
    data = written([png(), bytes(2 * MIB), png(1)])
    found = read(data, 3, max_bytes=MIB)
    assert (found[0], found[2]) == (png(), png(1))
    assert f"too many bytes: {2 * MIB} > `max_bytes` {MIB}" in str(found[1])


def test_a_footer_that_announces_less_than_the_pages_hold_is_damaged() -> None:
    data = bytearray(written([bytes(100_000)] * 2, compression="zstd", use_dictionary=False))
    ((_, chunk),) = chunks_of(io.BytesIO(data))
    said, less = (varint(size) for size in (chunk.unpacked, 70_000))
    assert data.count(said) == 1
    data[data.index(said) : data.index(said) + len(said)] = less
    with pytest.raises(ArchiveError, match="its pages unpack to more bytes than it announces"):
        read(bytes(data), 2)


def test_texts_that_are_too_long_together_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchead.archive.parquet._TEXT_BYTES", MIB)
    sink = io.BytesIO()
    ids = [f"{number:04}" * 500 for number in range(1000)]
    pq.write_table(pa.table({"id": ids, "image": [png()] * 1000}), sink, compression="zstd", use_dictionary=False)
    with pytest.raises(ArchiveError, match=r"column 'id' of row group 0 unpacks to 20\d+ bytes of text; allowed"):
        read(sink.getvalue(), 3)


@pytest.mark.slow
def test_one_large_image_for_many_rows_takes_the_memory_of_few(tmp_path: Path) -> None:
    """Of 40 MB in a dictionary, 64 rows: together 2.6 GB."""
    once = pa.array([bytes(40_000_000)], pa.binary())
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), once)
    sink = io.BytesIO()
    ids = [str(number) for number in range(64)]
    pq.write_table(pa.table({"id": ids, "image": images}), sink, compression="zstd", store_schema=False)
    assert len(sink.getvalue()) < 33_000
    path = tmp_path / "a.parquet"
    path.write_bytes(sink.getvalue())
    code = (
        "import pyarrow as pa; from patchead.archive.readers import read_images; from patchead.storage import Storage\n"
        f"found = read_images({str(path)!r}, 'parquet', [str(n) for n in range(64)], storage=Storage())\n"
        "print(sum(len(data) == 40_000_000 for _, data in found), pa.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, most = map(int, done.stdout.split())
    assert count == 64
    assert most < 250_000_000


def varint(value: int) -> bytes:
    """A whole number as Thrift's compact form has it."""
    value, found = value << 1, bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
