from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pytest

from patchead.archive import shards
from patchead.archive.catalog import CatalogRequest, catalog
from patchead.archive.readers import read_images
from patchead.archive.shards import Shard, ShardListing, list_shard
from patchead.errors import ArchiveError, SettingsError
from patchead.schema import MANIFEST
from patchead.storage import Storage
from tests.helpers.s3_server import S3Server
from tests.helpers.sample_files import AWKWARD, SCREW_21, errors, found, ids, parquet, png, tar, write, write_memory

NUT_20 = "product=nut/night=2026-11-20"
NIGHT_21 = dt.date(2026, 11, 21)
ARCHIVE = {
    **{f"{SCREW_21}/{name}": png(place) for place, name in enumerate(AWKWARD) if "::" not in name},
    f"{SCREW_21}/s.tar": tar([("a/x.png", png(20)), ("y.jpg", png(21)), ("notes.txt", b"")]),
    f"{SCREW_21}/p.parquet": parquet({"id": ["r 1", "r#2"], "image": [png(30), png(31)]}),
    f"{NUT_20}/only.png": png(40),
    f"{NUT_20}/readme.md": b"text",
    f"{NUT_20}/.cache/x.png": b"hidden",
}
IN_SHARDS = {"s.tar#a/x.png": 20, "s.tar#y.jpg": 21, "p.parquet#r 1": 30, "p.parquet#r#2": 31}


def test_every_format_gives_stable_ids_and_groups(tmp_path: Path) -> None:
    result = found(write(tmp_path, ARCHIVE))
    manifest = result.manifest
    assert manifest.schema == MANIFEST
    names = [name for name in AWKWARD if "::" not in name]
    expected = [f"{SCREW_21}/{name}" for name in (*names, *IN_SHARDS)] + [f"{NUT_20}/only.png"]
    assert manifest["image_id"].to_pylist() == sorted(expected)
    groups = set(zip(manifest["product"].to_pylist(), manifest["group_id"].to_pylist(), strict=True))
    assert groups == {("screw", "night=2026-11-21/product=screw"), ("nut", "night=2026-11-20/product=nut")}
    assert (result.ignored, result.shards) == (2, 2)
    assert manifest["status"].null_count == manifest.num_rows


def test_memory_archive_has_the_same_ids_groups_and_images(tmp_path: Path) -> None:
    columns = ["image_id", "key", "format", "size", "night", "product", "group_id", "status"]
    local, memory = found(write(tmp_path, ARCHIVE)), found(write_memory("catalog", ARCHIVE))
    assert memory.manifest.select(columns) == local.manifest.select(columns)
    assert (memory.ignored, memory.shards) == (local.ignored, local.shards)
    for result in (local, memory):
        for row in result.manifest.to_pylist():
            ((_, data),) = read_images(row["uri"], row["format"], [row["key"]], storage=Storage())
            name = row["image_id"].removeprefix(f"{SCREW_21}/")
            expected = png(IN_SHARDS[name]) if name in IN_SHARDS else ARCHIVE[row["image_id"]]
            assert data == expected


def test_s3_archive_is_read_the_same(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket()
    for name, data in ARCHIVE.items():
        s3.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=f"my archive/{name}", Body=data)
    uri, local = f"{bucket}/my archive", found(write(tmp_path, ARCHIVE))
    result = found(uri, storage=s3.storage)
    columns = ["image_id", "key", "format", "size", "group_id"]
    assert result.manifest.select(columns) == local.manifest.select(columns)
    assert ids(uri, storage=s3.storage, night=dt.date(2026, 11, 20)) == [f"{NUT_20}/only.png"]
    for row in result.manifest.to_pylist():
        ((_, data),) = read_images(row["uri"], row["format"], [row["key"]], storage=s3.storage)
        assert isinstance(data, bytes)


def test_etags_change_with_the_file_and_only_with_it(tmp_path: Path) -> None:
    uri = write(tmp_path, ARCHIVE)
    before = found(uri).manifest.to_pydict()
    (tmp_path / f"{NUT_20}/only.png").write_bytes(png(41))
    after = found(uri).manifest.to_pydict()
    assert before["image_id"] == after["image_id"]
    changed = [a for a, x, y in zip(after["image_id"], before["etag"], after["etag"], strict=True) if x != y]
    assert changed == [f"{NUT_20}/only.png"]


@pytest.mark.parametrize(("format", "suffixes", "ignored"), [("files", 7, 3), ("tar", 2, 10), ("parquet", 2, 9)])
def test_format_restricts_what_is_taken(tmp_path: Path, format: str, suffixes: int, ignored: int) -> None:
    result = found(write(tmp_path, ARCHIVE), format=format)
    assert set(result.manifest["format"].to_pylist()) == {format}
    assert (result.manifest.num_rows, result.ignored) == (suffixes, ignored)
    with pytest.raises(SettingsError, match=r"archive\.format must be one of auto, files, tar, parquet; got 'zip'"):
        found(str(tmp_path), format="zip")


@pytest.mark.parametrize("name", ["s.tar", "p.parquet", AWKWARD[0]])
def test_one_file_is_an_archive(tmp_path: Path, name: str) -> None:
    uri = write(tmp_path, ARCHIVE)
    assume = {"night": "2026-11-21", "product": "x"}
    expected = [key for key in IN_SHARDS if key.startswith(name)] or [name]
    assert ids(f"{uri}/{SCREW_21}/{name}", assume=assume) == sorted(expected)


def test_filters_and_limit(tmp_path: Path) -> None:
    uri = write(tmp_path, ARCHIVE)
    assert ids(uri, night=dt.date(2026, 11, 20)) == ids(uri, products=("nut",)) == [f"{NUT_20}/only.png"]
    assert ids(uri, products=("nut", "screw")) == ids(uri)
    assert ids(uri, limit=3) == ids(uri)[:3]
    assert ids(uri, night=NIGHT_21, limit=3) == [name for name in ids(uri) if SCREW_21 in name][:3]


def test_other_nights_are_not_opened(tmp_path: Path) -> None:
    broken = {f"product=screw/night=2026-11-19/{name}": b"broken" for name in ("s.tar", "p.parquet")}
    uri = write(tmp_path, ARCHIVE | broken)
    opened: list[str] = []

    def spy(function: Callable[[Shard], ShardListing], items: Iterable[Shard]) -> Iterable[ShardListing]:
        for shard in items:
            opened.append(shard.path)
            yield function(shard)

    manifest = catalog(CatalogRequest(uri, night=NIGHT_21), map_shards=spy).manifest
    assert sorted(opened) == [f"{SCREW_21}/p.parquet", f"{SCREW_21}/s.tar"]
    assert manifest["status"].null_count == manifest.num_rows
    assert found(uri).manifest.num_rows == len(ids(uri, night=NIGHT_21)) + 3


def test_keys_from_columns_and_sidecars_are_filtered_too(tmp_path: Path) -> None:
    nights = ["2026-11-20", "20261121"]
    members = [(f"{n}.png", png()) for n in range(2)]
    sidecars = [
        (f"{n}.json", json.dumps({"night": nights[n], "product": "a", "part": f"p{n}"}).encode()) for n in range(2)
    ]
    columns = {"key": ["r0", "r1"], "image": [png()] * 2, "night": nights, "product": ["a", "b"], "part": ["q0", "q1"]}
    uri = write(tmp_path, {"s.tar": tar([*members, *sidecars]), "p.parquet": parquet(columns)})
    rows = found(uri, part_id_column="part", night=NIGHT_21).manifest.to_pylist()
    assert [(row["image_id"], row["product"], row["part_id"]) for row in rows] == [
        ("p.parquet#r1", "b", "q1"),
        ("s.tar#1.png", "a", "p1"),
    ]


def test_a_duplicate_of_another_night_does_not_take_the_firsts_place(tmp_path: Path) -> None:
    columns = {"id": ["a", "a"], "image": [png(), png(1)], "night": ["2026-11-20", "2026-11-21"]}
    uri = write(tmp_path, {"product=x/p.parquet": parquet(columns)})
    (row,) = errors(uri, night=NIGHT_21).items()
    assert row[0] == "product=x/p.parquet#a~2"
    assert "duplicate key" in (row[1] or "")


def test_template_and_assume(tmp_path: Path) -> None:
    files = {"screw/s1/a.png": png(), "screw/s2/b.tar": tar([("x.png", png())]), "stray.png": png()}
    uri = write(tmp_path, files)
    result = errors(uri, template="{product}/{station}/{filename}", assume={"night": "2026-11-21"})
    assert result["screw/s1/a.png"] is result["screw/s2/b.tar#x.png"] is None
    assert "does not fit archive.template" in (result["stray.png"] or "")


def test_bad_members_are_rows_and_stop_no_other(tmp_path: Path) -> None:
    members = [("../../x.png", png()), ("a.png", png()), ("a.png", png(1)), ("b.png", png())]
    keys = {"id": ["a", None, "a"], "image": [png()] * 3}
    uri = write(tmp_path, {f"{SCREW_21}/s.tar": tar(members), f"{SCREW_21}/p.parquet": parquet(keys)})
    result = errors(uri)
    good = {f"{SCREW_21}/{name}" for name in ("s.tar#a.png", "s.tar#b.png", "p.parquet#a")}
    assert {name for name, error in result.items() if error is None} == good
    assert "unsafe member name '../../x.png'" in (result[f"{SCREW_21}/s.tar#../../x.png"] or "")
    assert "duplicate key" in (result[f"{SCREW_21}/s.tar#a.png~2"] or "")
    assert "duplicate key" in (result[f"{SCREW_21}/p.parquet#a~2"] or "")
    assert "is null" in (result[f"{SCREW_21}/p.parquet#"] or "")
    assert not (tmp_path.parent / "x.png").exists()


def test_broken_shards_are_rows_and_stop_no_other(tmp_path: Path) -> None:
    whole = tar([("a.png", png()), ("b.png", bytes(5000))])
    shards_there = {
        "cut.tar": whole[: len(png()) + 1600],
        "no.tar": b"text",
        "no_image.parquet": parquet({"id": ["a"], "picture": [png()]}),
        "no_id.parquet": parquet({"image": [png()], "label": [1]}),
        "no.parquet": b"text",
        "good.tar": whole,
    }
    uri = write(tmp_path, {f"{SCREW_21}/{name}": data for name, data in shards_there.items()})
    result = {name.removeprefix(f"{SCREW_21}/"): error for name, error in errors(uri).items()}
    assert {name for name, error in result.items() if error is None} == {
        "cut.tar#a.png", "cut.tar#b.png", "good.tar#a.png", "good.tar#b.png"
    }  # fmt: skip
    assert "damaged or cut off after 2 members" in (result["cut.tar"] or "")
    assert "not a readable, uncompressed tar file" in (result["no.tar"] or "")
    assert "archive.image_column" in (result["no_image.parquet"] or "")
    assert "columns: id, picture" in (result["no_image.parquet"] or "")
    assert "archive.id_column" in (result["no_id.parquet"] or "")
    assert "not a readable Parquet file" in (result["no.parquet"] or "")
    rows = found(uri).manifest.to_pylist()
    assert {(row["night"], row["product"]) for row in rows} == {(NIGHT_21, "screw")}
    cut_off = read_images(f"{uri}/{SCREW_21}/cut.tar", "tar", ["a.png", "b.png"], storage=Storage())
    assert [isinstance(data, bytes) for _, data in sorted(cut_off, key=lambda item: item[0])] == [True, False]


def test_a_shard_that_vanishes_is_a_row(tmp_path: Path) -> None:
    uri = write(tmp_path, ARCHIVE)

    def late(function: Callable[[Shard], ShardListing], items: Iterable[Shard]) -> Iterable[ShardListing]:
        (tmp_path / f"{SCREW_21}/s.tar").unlink()
        return map(function, items)

    rows = catalog(CatalogRequest(uri), map_shards=late).manifest.to_pylist()
    failed = [(row["image_id"], row["error"]) for row in rows if row["status"]]
    assert [name for name, _ in failed] == [f"{SCREW_21}/s.tar"]
    assert "does not exist" in failed[0][1]


def test_some_rows_without_a_key_are_rows_but_all_are_an_error(tmp_path: Path) -> None:
    uri = write(tmp_path, {f"{SCREW_21}/a.png": png(), "night=2026-11-21/b.png": png()})
    assert "no value for key 'product'" in (errors(uri)["night=2026-11-21/b.png"] or "")
    with pytest.raises(ArchiveError, match=r"key 'product' of archive\.group_by") as caught:
        found(f"{uri}/night=2026-11-21", assume={"night": "2026-11-21"})
    for remedy in ("product=…/", "archive.template", "archive.assume", "b.png"):
        assert remedy in str(caught.value)
    with pytest.raises(ArchiveError, match=r"no path in .* fits archive\.template '{a}/{b}/{c}/{d}'"):
        found(uri, template="{a}/{b}/{c}/{d}")


def test_an_empty_archive_says_what_was_looked_for(tmp_path: Path) -> None:
    for files in (
        {},
        {"a.txt": b"", "b/c.csv": b""},
        {"empty.tar": tar([]), "p.parquet": parquet({"id": [], "image": pa.array([], pa.binary())})},
    ):
        folder = tmp_path / f"{len(files)}{len(str(files))}"
        folder.mkdir()
        with pytest.raises(ArchiveError, match=r"no image in .*looked for \.png, .*\.tar, \.parquet") as caught:
            found(write(folder, files))
        ignored = sum(not name.endswith((".tar", ".parquet")) for name in files)
        assert f"{ignored} other files were ignored" in str(caught.value)


def test_an_empty_selection_names_the_filter_and_what_exists(tmp_path: Path) -> None:
    many = {f"product=p/night=2026-10-{day:02d}/a.png": png() for day in range(1, 16)}
    columns = {"id": ["a"], "image": [png()], "night": ["2026-12-24"], "product": ["gift"]}
    uri = write(tmp_path, many | {"c.parquet": parquet(columns), "stray.png": png()})
    with pytest.raises(ArchiveError, match=r"passes archive\.night=2026-11-21") as caught:
        found(uri, night=NIGHT_21)
    assert "2026-10-01, 2026-10-02" in str(caught.value)
    assert "and 6 more" in str(caught.value)
    assert "1 images whose night or product is unknown" in str(caught.value)
    with pytest.raises(ArchiveError, match=r"archive\.products=\['x'\].*products: gift, p;"):
        found(uri, products=("x",))
    with pytest.raises(ArchiveError, match="no image in"):
        found(write(tmp_path / "empty", {"a.txt": b""}), night=NIGHT_21)


def test_what_cannot_be_reached_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with pytest.raises(ArchiveError, match=r"cannot list .*/nowhere: it does not exist"):
        found(str(tmp_path / "nowhere"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(ArchiveError, match=r"Could not connect.*storage\.endpoint_url"):
        found("s3://bucket/archive", storage=Storage(endpoint_url="http://127.0.0.1:9"))
    assert 0 < sum(pauses) < 20


def test_wrong_keys_and_a_missing_bucket_are_one_clear_error(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.bucket()
    s3.client.put_object(Bucket=bucket.removeprefix("s3://"), Key="a.png", Body=png())
    with pytest.raises(ArchiveError, match="it does not exist"):
        found(f"{bucket}-not", storage=s3.storage)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ArchiveError, match=r"access denied.*AWS_SECRET_ACCESS_KEY"):
        found(bucket, storage=Storage(endpoint_url=s3.endpoint, region="eu-west-1"))


def test_storage_that_stops_answering_is_no_broken_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = write(tmp_path, ARCHIVE)

    def lost(*args: object) -> None:
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(shards, "list_tar", lost)
    with pytest.raises(ArchiveError, match="connection reset by peer"):
        found(uri)


def test_shards_may_be_listed_in_other_processes(tmp_path: Path) -> None:
    uri = write(tmp_path, ARCHIVE)
    request = CatalogRequest(uri, part_id_column="part", template=None)
    assert pickle.loads(pickle.dumps(list_shard)) is list_shard
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = catalog(request, map_shards=pool.map)
    assert (found.manifest, found.ignored) == (catalog(request).manifest, 2)


def test_what_a_shard_tells_of_itself_is_no_metadata_of_its_rows(tmp_path: Path) -> None:
    listings: list[ShardListing] = []

    def spy(function: Callable[[Shard], ShardListing], items: Iterable[Shard]) -> Iterable[ShardListing]:
        for shard in items:
            listings.append(function(shard))
            yield listings[-1]

    uri = write(tmp_path, {"p.parquet": parquet({"id": ["a", "b"], "image": [png()] * 2, "night": ["20261120"] * 2})})
    with pytest.raises(ArchiveError, match="Nights there: 2026-11-20"):
        catalog(CatalogRequest(uri, group_by=("night",), night=NIGHT_21), map_shards=spy)
    (listing,) = listings
    assert (listing.images.num_rows, listing.nights, listing.images.schema.metadata) == (0, ["2026-11-20"], None)


def test_a_folder_in_the_way_of_an_id_does_not_make_two_of_one(tmp_path: Path) -> None:
    uri = write(tmp_path, {f"{SCREW_21}/s.tar": tar([("m.png", png())]), f"{SCREW_21}/s.tar#m.png": png(1)})
    result = errors(uri)
    assert result[f"{SCREW_21}/s.tar#m.png"] is None
    assert "duplicate key" in (result[f"{SCREW_21}/s.tar#m.png~2"] or "")


def test_requests_for_other_images_have_other_digests() -> None:
    given = CatalogRequest("s3://bucket/archive", assume={"night": "2026-11-21", "line": "1"})
    assert given.digest == CatalogRequest("s3://bucket/archive", assume={"line": "1", "night": "2026-11-21"}).digest
    changes: dict[str, object] = {
        "uri": "s3://bucket/other", "format": "tar", "template": "{product}", "group_by": ("product",),
        "assume": {"night": "2026-11-22", "line": "1"}, "image_column": "photo", "id_column": "id",
        "part_id_column": "part", "night": NIGHT_21, "products": ("screw",), "limit": 5, "lake": "s3://bucket/archive/lake",
            "folder_is_product": True, "keys": ("line",),
        "storage": Storage(endpoint_url="http://elsewhere"),
    }  # fmt: skip
    assert set(changes) == {field.name for field in fields(CatalogRequest)}
    digests = {replace(given, **{name: value}).digest for name, value in changes.items()}
    assert len(digests | {given.digest}) == len(changes) + 1
