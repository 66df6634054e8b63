from __future__ import annotations

import http.server
import io
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from patchead.archive import readers
from patchead.archive.readers import read_files, read_images, read_ranges
from patchead.archive.tar import list_tar, read_tar
from patchead.errors import ArchiveError
from patchead.storage import Storage
from tests.helpers.s3_server import S3Server
from tests.helpers.sample_files import AWKWARD, found, parquet, png, sparse_tar, tar, write, write_memory

Place = Callable[[dict[str, bytes]], tuple[str, Storage]]
NAMES = AWKWARD
SHARDS = {
    "tar": tar([(f"{number}.png", png(number)) for number in range(3)]),
    "parquet": parquet({"id": [f"{number}.png" for number in range(3)], "image": [png(number) for number in range(3)]}),
}


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Puts files somewhere and says where."""

    def put(files: dict[str, bytes]) -> tuple[str, Storage]:
        if request.param == "local":
            return write(tmp_path, files), Storage()
        if request.param == "memory":  # which itself does not know names with '::'
            return write_memory("readers", files), Storage()
        server: S3Server = request.getfixturevalue("s3")
        bucket = server.bucket()
        for name, data in files.items():
            server.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=name, Body=data)
        return bucket, server.storage

    return put


@pytest.fixture
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches of few files."""
    monkeypatch.setattr(readers, "AT_ONCE", 4)


@pytest.mark.usefixtures("four_at_once")
def test_loose_files_are_read_in_order_and_a_missing_one_fails_alone(place: Place) -> None:
    files = {f"a b/{name}": png(number) for number, name in enumerate(NAMES)} | {"empty.png": b""}
    uri, storage = place(files)
    if uri.startswith("memory"):
        files.pop("a b/cam::1.png")
    names = [*files, "gone.png", *files]
    results = dict(read_files([f"{uri}/{name}" for name in names], storage))
    assert list(results) == list(range(len(names)))
    for index, name in enumerate(names):
        if name == "gone.png":
            assert isinstance(results[index], ArchiveError)
            assert "gone.png: it does not exist. It is gone since it was listed" in str(results[index])
        else:
            assert results[index] == files[name]


def test_files_are_fetched_in_bounded_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uri = write(tmp_path, {f"{number}.png": b"%d" % number for number in range(7)})
    filesystem, _ = Storage().filesystem(uri)
    asked: list[int] = []
    fetch = filesystem.cat_ranges

    def cat_ranges(paths: list[str], *args: object, **options: object) -> list[bytes]:
        asked.append(len(paths))
        return fetch(paths, *args, **options)

    monkeypatch.setattr(filesystem, "cat_ranges", cat_ranges)
    monkeypatch.setattr(readers, "AT_ONCE", 3)
    reader = read_files([f"{uri}/{number}.png" for number in range(7)], Storage())
    assert next(reader) == (0, b"0")
    assert asked == [3]
    assert len(list(reader)) == 6
    assert asked == [3, 3, 1]


def test_one_loose_file(place: Place) -> None:
    uri, storage = place({NAMES[0]: png()})
    assert list(read_images(f"{uri}/{NAMES[0]}", "files", [None], storage=storage)) == [(0, png())]


@pytest.mark.parametrize("format", ["tar", "parquet"])
def test_shards_are_read_by_key_in_one_pass(place: Place, format: str) -> None:
    uri, storage = place({f"a b#%.{format}": SHARDS[format]})
    keys = ["2.png", "gone.png", "0.png", "2.png"]
    results = list(read_images(f"{uri}/a b#%.{format}", format, keys, storage=storage))
    assert [index for index, _ in results] == [2, 0, 3, 1]
    contents = dict(results)
    assert (contents[0], contents[2], contents[3]) == (png(2), png(0), png(2))
    assert "'gone.png' is no longer in" in str(contents[1])


@pytest.mark.parametrize("format", ["tar", "parquet", "files"])
def test_a_shard_that_is_gone_fails_every_key(place: Place, format: str) -> None:
    uri, storage = place({"x.png": png()})
    results = dict(read_images(f"{uri}/gone.{format}", format, ["a", "b"], storage=storage))
    assert sorted(results) == [0, 1]
    assert all(isinstance(error, ArchiveError) and "does not exist" in str(error) for error in results.values())


def test_what_was_read_before_the_damage_stands(tmp_path: Path) -> None:
    uri = write(tmp_path, {"s.tar": SHARDS["tar"][:1100]})
    results = dict(read_images(f"{uri}/s.tar", "tar", ["2.png", "1.png", "0.png"], storage=Storage()))
    assert results[2] == png(0)
    for index in (0, 1):
        assert isinstance(results[index], ArchiveError)
    assert "damaged or cut off" in str(results[0])


def test_the_columns_of_the_settings_are_used(tmp_path: Path) -> None:
    uri = write(tmp_path, {"p.parquet": parquet({"row": [1, 2], "picture": [b"a", b"b"]})})
    results = read_images(
        f"{uri}/p.parquet", "parquet", ["2"], storage=Storage(), image_column="picture", id_column="row"
    )
    assert list(results) == [(0, b"b")]
    ((_, error),) = read_images(f"{uri}/p.parquet", "parquet", ["2"], storage=Storage())
    assert "archive.image_column" in str(error)


@pytest.mark.parametrize("format", ["tar", "files"])
def test_an_endpoint_that_does_not_answer_is_an_error_for_every_key(
    format: str, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    storage = Storage(endpoint_url="http://127.0.0.1:9", region="us-west-1")
    results = dict(read_images(f"s3://bucket/x.{format}", format, ["a", "b"], storage=storage))
    assert 0 < sum(pauses) < 20
    assert sorted(results) == [0, 1]
    assert all("Could not connect" in str(error) and "endpoint_url" in str(error) for error in results.values())


def test_wrong_keys_are_an_error_for_every_key(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.bucket()
    s3.client.put_object(Bucket=bucket.removeprefix("s3://"), Key="s.tar", Body=SHARDS["tar"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage = Storage(endpoint_url=s3.endpoint, region="us-west-2")
    for format in ("tar", "files"):
        ((_, error),) = read_images(f"{bucket}/s.tar", format, ["0.png"], storage=storage)
        assert "access denied" in str(error)
        assert "AWS_SECRET_ACCESS_KEY" in str(error)


def places(data: bytes) -> tuple[list[int], list[int]]:
    members = list_tar(io.BytesIO(data), ()).members
    return members["offset"].to_pylist(), members["size"].to_pylist()


@pytest.mark.usefixtures("four_at_once")
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_ranges_are_the_bytes_that_reading_the_tar_gives(place: Place, format: int) -> None:
    names = [*AWKWARD, "deep/" * 50 + "x.png", "./sub/y.jpg", "ü" * 130 + ".png"]
    data = tar([*((name, png(number)) for number, name in enumerate(names)), ("empty.png", b"")], format)
    uri, storage = place({"a b#%.tar": data})
    members = found(uri, storage=storage, format="tar", group_by=("x",), assume={"x": "1"}).manifest.to_pylist()
    members = [member for member in members if member["uri"] == f"{uri}/a b#%.tar"]  # all places may share a folder
    assert len(members) == len(names) + 1
    expected = dict(read_tar(io.BytesIO(data), [member["key"] for member in members]))
    offsets, sizes = [member["offset"] for member in members], [member["size"] for member in members]
    ranges = list(read_ranges(members[0]["uri"], offsets, sizes, storage))
    assert ranges == sorted(expected.items())


def test_only_whole_plain_tar_members_have_an_offset(tmp_path: Path) -> None:
    whole = tar([("a.png", b"1"), ("a.png", b"2"), ("../b.png", b"3"), ("c.png", bytes(900))])
    files = {
        "cut.tar": whole[: 3 * 1024 + 512 + 100],
        "sparse.tar": sparse_tar("s.png", b"x"),
        "p.parquet": SHARDS["parquet"],
        "loose.png": png(),
    }
    rows = found(write(tmp_path, files), group_by=("x",), assume={"x": "1"}).manifest.to_pylist()
    assert {row["image_id"]: row["offset"] for row in rows if row["offset"] is not None} == {"cut.tar#a.png": 512}
    others = {"cut.tar#a.png~2", "cut.tar#../b.png", "cut.tar#c.png", "cut.tar", "sparse.tar#s.png", "loose.png"}
    assert others < {row["image_id"] for row in rows}


def test_a_shard_that_is_shorter_now_fails_what_it_lost(place: Place) -> None:
    data = SHARDS["tar"]
    offsets, sizes = places(data)
    uri, storage = place({"s.tar": data[: offsets[1] + 7]})
    results = dict(read_ranges(f"{uri}/s.tar", offsets, sizes, storage))
    assert results[0] == png(0)
    for index, came in ((1, 7), (2, 0)):
        assert isinstance(results[index], ArchiveError)
        assert f"{came} instead of {sizes[index]} bytes came from byte {offsets[index]} of" in str(results[index])


def test_ranges_of_a_shard_that_is_gone_all_fail_but_the_empty(place: Place) -> None:
    uri, storage = place({"x.png": png()})
    results = dict(read_ranges(f"{uri}/gone.tar", [512, 2048, 4096], [10, 0, 10], storage))
    assert results[1] == b""
    for index in (0, 2):
        assert isinstance(results[index], ArchiveError)
        assert "gone.tar: it does not exist. It is gone" in str(results[index])


def test_ranges_that_may_not_be_read_all_fail(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.bucket()
    s3.client.put_object(Bucket=bucket.removeprefix("s3://"), Key="s.tar", Body=SHARDS["tar"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage = Storage(endpoint_url=s3.endpoint, region="ap-south-1")
    results = dict(read_ranges(f"{bucket}/s.tar", *places(SHARDS["tar"]), storage))
    assert sorted(results) == [0, 1, 2]
    assert all("access denied" in str(error) for error in results.values())


def test_three_members_of_a_thousand_cost_their_own_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tar([(f"{number}.png", bytes([number % 256]) * (number + 1)) for number in range(1000)])
    uri = write_memory("thousand", {"s.tar": data})
    filesystem, _ = Storage().filesystem(uri)
    asked: list[tuple[int, int]] = []
    fetch = filesystem.cat_ranges

    def cat_ranges(paths: list[str], starts: list[int], ends: list[int], **options: object) -> list[bytes]:
        asked.extend(zip(starts, ends, strict=True))
        return fetch(paths, starts, ends, **options)

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the whole shard was opened")

    monkeypatch.setattr(filesystem, "cat_ranges", cat_ranges)
    monkeypatch.setattr(filesystem, "open", refuse)
    monkeypatch.setattr(readers, "AT_ONCE", 2)
    wanted = (3, 998, 500)
    offsets, sizes = ([column[number] for number in wanted] for column in places(data))
    results = list(read_ranges(f"{uri}/s.tar", offsets, sizes, Storage()))
    assert results == [(place, bytes([number % 256]) * (number + 1)) for place, number in enumerate(wanted)]
    assert [end - start for start, end in asked] == sizes == [4, 999, 501]


def test_what_is_fetched_together_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = [10, 10, 10, 100, 5, 30, 8]
    uri = write(tmp_path, {f"{number}.png": bytes(size) for number, size in enumerate(sizes)})
    filesystem, _ = Storage().filesystem(uri)
    asked: list[list[str]] = []
    fetch = filesystem.cat_ranges

    def cat_ranges(paths: list[str], *args: object, **options: object) -> list[bytes]:
        asked.append([path.rpartition("/")[2][0] for path in paths])
        return fetch(paths, *args, **options)

    monkeypatch.setattr(filesystem, "cat_ranges", cat_ranges)
    uris = [f"{uri}/{number}.png" for number in range(len(sizes))]
    found = list(read_files(uris, Storage(), sizes=sizes, bytes_in_flight=25))
    assert found == [(number, bytes(size)) for number, size in enumerate(sizes)]
    assert asked == [["0", "1"], ["2"], ["3"], ["4"], ["5"], ["6"]]
    asked.clear()
    assert list(read_files(uris, Storage(), sizes=sizes, first=4)) == [
        (n, bytes(min(s, 4))) for n, s in enumerate(sizes)
    ]
    assert len(asked) == 1


def test_a_key_with_a_version_in_its_name_is_that_key(s3: S3Server) -> None:
    bucket = s3.bucket()
    names = ["a?versionId=abc.png", "b?versionId=", "a", "x?versionId=1/c.png"]
    for name in names:
        s3.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=name, Body=name.encode())
    uris = [f"{bucket}/{name}" for name in names]
    assert list(read_files(uris, s3.storage)) == [(n, name.encode()) for n, name in enumerate(names)]
    listed = found(bucket, storage=s3.storage, group_by=("x",), assume={"x": "1"}).manifest["image_id"].to_pylist()
    assert listed == ["a?versionId=abc.png", "x?versionId=1/c.png"]


class _Glacier(http.server.BaseHTTPRequestHandler):
    """Answers as S3 does for an object that was moved to an archive."""

    def do_GET(self) -> None:
        body = (
            b"<?xml version='1.0'?><Error><Code>InvalidObjectState</Code><Message>The operation is not valid for the "
        )
        body += b"object's storage class</Message><StorageClass>GLACIER</StorageClass></Error>"
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def test_an_object_in_an_archive_is_to_be_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Glacier) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            storage = Storage(endpoint_url=f"http://127.0.0.1:{server.server_port}", region="us-west-1")
            errors = [
                *dict(read_files(["s3://bucket/a.png"], storage)).values(),
                *dict(read_ranges("s3://bucket/a.tar", [512], [10], storage)).values(),
            ]
        finally:
            server.shutdown()
            thread.join()
    assert len(errors) == 2
    for error in errors:
        assert "is archived (S3 Glacier or Deep Archive). Restore it first" in str(error)
        assert "keys" not in str(error)
