"""Parquet of Hugging Face and others, keys that are no keys, and texts that are too long."""

from __future__ import annotations

import datetime as dt
import io
import tracemalloc
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.archive.keys import parse_night, parse_time
from patchead.archive.left_out import NO_TIME
from patchead.archive.readers import read_images
from patchead.hashing import content_hash
from patchead.storage import Storage
from tests.helpers.sample_files import errors, found, ids, parquet, png, tar, write, write_memory

KEYS = {"group_by": ("product",), "assume": {"product": "screw"}}
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def hugging_face(paths: list[str | None], images: list[bytes | None]) -> bytes:
    rows = [{"bytes": image, "path": path} for image, path in zip(images, paths, strict=True)]
    return parquet({"image": pa.array(rows, STRUCT), "label": list(range(len(rows)))}, row_group_size=3)


def test_rows_without_a_path_are_named_by_their_content(tmp_path: Path) -> None:
    images = [png(number) for number in range(8)]
    paths = [None, "b.png", None, None, None, "f.png", None, None]
    uri = write(tmp_path, {"a.parquet": hugging_face(paths, images)})
    keys = [path or content_hash(image) for path, image in zip(paths, images, strict=True)]
    assert errors(uri, **KEYS) == {f"a.parquet#{key}": None for key in sorted(keys)}
    contents = dict(read_images(f"{uri}/a.parquet", "parquet", keys[::-1], storage=Storage()))
    assert [contents[place] for place in range(8)] == images[::-1]
    # An id of its own, whatever else is in the file and wherever the row stands.
    again = write(tmp_path / "again", {"a.parquet": hugging_face([None] * 8, images[::-1])})
    assert {f"a.parquet#{content_hash(image)}" for image in images} == set(ids(again, **KEYS))


def test_a_row_without_path_or_bytes_and_one_that_is_there_twice_say_so(tmp_path: Path) -> None:
    uri = write(tmp_path, {"a.parquet": hugging_face([None] * 4, [png(), None, png(1), png()])})
    told = errors(uri, **KEYS)
    assert len(told) == 4
    assert told[f"a.parquet#{content_hash(png())}"] is None
    assert told["a.parquet#row group 0, row 1"] == "the row has no image bytes"
    assert "duplicate key" in (told[f"a.parquet#{content_hash(png())}~2"] or "")


def test_several_images_in_a_row_are_explained(tmp_path: Path) -> None:
    rows = pa.array([[{"bytes": png(), "path": "a"}] * 2], pa.list_(STRUCT))
    uri = write(tmp_path, {"a.parquet": parquet({"image": rows, "id": ["1"]})})
    assert "several images in a row. Write one row for each image" in (errors(uri, **KEYS)["a.parquet"] or "")


def test_class_labels_in_an_id_column_name_the_setting(tmp_path: Path) -> None:
    uri = write(tmp_path, {"a.parquet": parquet({"id": [1, 0, 1, 1], "image": [png(n) for n in range(4)]})})
    assert "set archive.id_column" in (errors(uri, **KEYS)["a.parquet#1~2"] or "")


@pytest.mark.parametrize(
    "night",
    [
        pa.array(["2026-11-21T03:15:00"]),
        pa.array(["2026-11-21 03:15:00.25+00:00"]),
        pa.array(["20261121"]),
        pa.array([20261121]),
        pa.array([dt.date(2026, 11, 21)]),
        pa.array([dt.datetime(2026, 11, 21, 3, 15)], pa.timestamp("ns")),
        pa.array(["2026-11-21"]).dictionary_encode(),
    ],
    ids=str,
)
def test_nights_as_texts_dates_and_timestamps(tmp_path: Path, night: pa.Array) -> None:
    uri = write(tmp_path, {"a.parquet": parquet({"id": ["1"], "image": [png()], "night": night})})
    (row,) = found(uri, assume={"product": "screw"}).manifest.to_pylist()
    assert (row["night"], row["error"]) == (dt.date(2026, 11, 21), None)


@pytest.mark.parametrize("text", ["2026-11-21x", "2026-11-21T", "2026-13-21T03:15:00", "1795231234"])
def test_what_is_no_night(text: str) -> None:
    assert parse_night(text) is None


def test_a_number_is_the_time_since_1970_by_its_size() -> None:
    moment = dt.datetime(2026, 11, 21, 3, 15, 30, tzinfo=dt.timezone.utc)
    seconds = int(moment.timestamp())
    for factor in (1, 10**3, 10**6, 10**9):
        assert parse_time(str(seconds * factor)) == moment
    assert parse_time(f"{seconds}.5") == moment + dt.timedelta(seconds=0.5)
    assert parse_time("1.79523e+09") is not None
    assert [parse_time(text) for text in ("12", "9" * 30, "20261121")] == [None] * 3
    assert parse_time("2026-11-21T03:15:30Z") == moment


def test_epochs_in_a_parquet_column_and_a_sidecar(tmp_path: Path) -> None:
    seconds = 1_795_231_234
    table = parquet({"id": ["1"], "image": [png()], "captured_at": [seconds * 1000]})
    shard = tar([("a.png", png(1)), ("a.json", b'{"captured_at": %d}' % seconds)])
    rows = found(write(tmp_path, {"a.parquet": table, "b.tar": shard}), **KEYS).manifest.to_pylist()
    assert {row["captured_at"] for row in rows} == {dt.datetime.fromtimestamp(seconds, dt.timezone.utc)}


def test_texts_that_are_no_time_are_counted_with_examples(tmp_path: Path) -> None:
    times = ["yesterday", "21.11.2026 10:00", None, "2026-11-21T10:00:00"]
    table = parquet({"id": ["1", "2", "3", "4"], "image": [png(n) for n in range(4)], "captured_at": times})
    shard = tar([("a.png", png(9)), ("a.json", b'{"captured_at": "soon"}'), ("b.png", png(8)), ("b.json", b"{}")])
    result = found(write(tmp_path, {"a.parquet": table, "b.tar": shard}), **KEYS)
    assert result.manifest["captured_at"].null_count == 5
    assert result.unreadable.counts == {NO_TIME: 3}
    examples = ["a.parquet#1 has 'yesterday'", "a.parquet#2 has '21.11.2026 10:00'", "b.tar#a.png has 'soon'"]
    assert sorted(result.unreadable.examples[NO_TIME]) == examples
    other = write(tmp_path / "other", {f"product={name}/c.tar": shard for name in ("nut", "bolt")})
    selected = found(other, group_by=("product",), products=("nut",))
    assert selected.unreadable.examples == {NO_TIME: ["product=nut/c.tar#a.png has 'soon'"]}


def test_hives_default_partition_is_no_value(tmp_path: Path) -> None:
    folder = "night=2026-11-21/product=__HIVE_DEFAULT_PARTITION__"
    uri = write(tmp_path, {f"{folder}/a.png": png(), "night=2026-11-21/product=nut/b.png": png()})
    assert "no value for key 'product'" in (errors(uri)[f"{folder}/a.png"] or "")
    rows = found(uri, assume={"product": "washer"}).manifest.to_pylist()
    assert sorted(row["product"] for row in rows) == ["nut", "washer"]


@pytest.mark.parametrize(("length", "fits"), [(27, True), (28, False), (40, False)])
def test_a_product_whose_name_is_too_long_for_a_folder_is_told_by_the_catalog(length: int, fits: bool) -> None:

    product = "螺" * length
    uri = write_memory(f"long-{length}", {f"{product}/2026-11-21/a.png": png(), "nut/2026-11-21/b.png": png()})
    (row,) = (
        row
        for row in catalog(CatalogRequest(uri, template="{product}/{night}/{file}")).manifest.to_pylist()
        if row["image_id"].startswith(product)
    )
    size = len(f"product={quote(product)}")
    expected = f"product {product!r} is too long for a folder's name: {size} bytes"
    assert (row["error"] or "").startswith("" if fits else expected)
    assert (row["error"] is None) == fits


def test_a_text_of_megabytes_in_a_few_bytes_is_refused_before_it_is_spread(tmp_path: Path) -> None:
    sink = io.BytesIO()
    count = 1000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * 2_000_000]))
    images = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([png()], pa.binary()))
    pq.write_table(
        pa.table({"id": text, "image": images.cast(pa.binary())}), sink, compression="zstd", store_schema=False
    )
    assert len(sink.getvalue()) < 100_000
    uri = write(tmp_path, {"a.parquet": sink.getvalue()})
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    told = errors(uri, **KEYS)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert pa.default_memory_pool().max_memory() - before < 2**28
    assert "column 'id' holds a text of 2000000 bytes; allowed are 4096" in (told["a.parquet"] or "")


def test_a_member_with_an_endless_name_is_a_row_with_a_short_one(tmp_path: Path) -> None:
    uri = write(tmp_path, {"a.tar": tar([("x" * 100_000 + ".png", png()), ("b.png", png())])})
    told = errors(uri, **KEYS)
    assert told["a.tar#b.png"] is None
    (other,) = (image_id for image_id in told if image_id != "a.tar#b.png")
    assert len(other) < 5000
    assert "a name of 100004 characters; allowed are 4096" in (told[other] or "")
