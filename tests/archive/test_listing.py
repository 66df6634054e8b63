from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from s3fs import S3FileSystem

from patchead.archive.listing import BATCH_ROWS, LISTING, Root, formats_of, list_files, open_root, resolve
from patchead.storage import Storage
from tests.helpers.s3_server import S3Server
from tests.helpers.sample_files import AWKWARD, write, write_memory


def listed(uri: str, storage: Storage | None = None, **options: Any) -> dict[str, dict[str, Any]]:
    batches = list(list_files(open_root(uri, storage or Storage()), **options))
    assert all(batch.schema == LISTING for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row for row in rows}


FILES = {
    "a.png": b"12",
    "x/b.txt": b"1",
    "x/y/c.tar": b"",
    ".hidden.png": b"1",
    "__MACOSX/d.png": b"1",
    "x/_delta_log/f.parquet": b"1",
    "x/.git/e.png": b"1",
}


def test_local_files_come_with_size_and_time_and_without_the_hidden(tmp_path: Path) -> None:
    rows = listed(write(tmp_path, FILES))
    assert sorted(rows) == ["a.png", "x/b.txt", "x/y/c.tar"]
    assert rows["a.png"]["size"] == 2
    assert rows["a.png"]["etag"] == f"2-{(tmp_path / 'a.png').stat().st_mtime_ns}"
    assert listed(f"file://{tmp_path}") == rows


def test_memory_lists_the_same_as_local(tmp_path: Path) -> None:
    files = FILES | {f"x/{name}": b"1" for name in AWKWARD if "::" not in name}
    local, memory = listed(write(tmp_path, files)), listed(write_memory("listing", files))
    assert {path: row["size"] for path, row in memory.items()} == {path: row["size"] for path, row in local.items()}
    assert all(row["etag"] for row in memory.values())


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_one_file_is_a_listing_of_one(tmp_path: Path, kind: str) -> None:
    base = write(tmp_path, FILES) if kind == "local" else write_memory("one", FILES)
    root = open_root(f"{base}/x/y/c.tar", Storage())
    assert (root.uri, root.file) == (f"{base}/x/y", "c.tar")
    assert [batch["path"].to_pylist() for batch in list_files(root)] == [["c.tar"]]


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "no"), "memory://no-such-archive"):
        with pytest.raises(FileNotFoundError):
            open_root(uri, Storage())


def test_unwanted_folders_are_not_opened(tmp_path: Path) -> None:
    for uri in (write(tmp_path, FILES), write_memory("folders", FILES)):
        asked = []

        def keep(folder: str, asked: list[str] = asked) -> bool | None:
            asked.append(folder)
            return folder != "x"

        assert sorted(listed(uri, keep=keep)) == ["a.png"]
        assert asked == ["x"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, {"real/a.png": b"1"})
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "b.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    rows = listed(str(tmp_path))
    assert sorted(rows) == ["again/a.png", "b.png", "broken.png", "real/a.png"]
    assert rows["broken.png"]["error"] == "neither a file nor a link to one"
    assert rows["b.png"]["error"] is None


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert listed(str(tmp_path))["a.png"]["error"] == "neither a file nor a link to one"


def test_a_name_that_is_no_text_is_kept_with_its_error(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")).write_bytes(b"1")
    assert listed(str(tmp_path))["a\\udcff.png"]["error"] == "the file name is not valid UTF-8; rename it"


def test_local_batches_are_bounded(tmp_path: Path) -> None:
    for number in range(BATCH_ROWS + 5):
        (tmp_path / f"{number}.png").touch()
    sizes = [batch.num_rows for batch in list_files(open_root(str(tmp_path), Storage()))]
    assert sizes == [BATCH_ROWS, 5]


def test_kinds_go_by_suffix_in_any_case() -> None:
    names = ["a.PNG", "a.jpg", "b.JpEg", "c.tif", "c.tiff", "d.bmp", "e.webp", "f.TAR", "g.parquet", "png", "a.png.gz"]
    expected = ["files"] * 7 + ["tar", "parquet", None, None]
    assert formats_of(pa.array(names)).to_pylist() == expected


def test_names_that_look_like_chained_urls_are_resolved_as_they_are(tmp_path: Path) -> None:
    filesystem, path = resolve(f"{tmp_path}/cam::1.png", Storage())
    assert path == f"{tmp_path}/cam::1.png"
    assert "file" in filesystem.protocol
    assert resolve("s3://bucket/b::c#%.png", Storage(anonymous=True))[1] == "bucket/b::c#%.png"


class Pager:
    """Stands for `S3FileSystem.call_s3`: ``size`` objects in pages of a thousand, made as they are asked for."""

    def __init__(self, size: int) -> None:
        self.size, self.requests = size, []

    def __call__(self, method: str, **request: Any) -> dict[str, Any]:
        assert method == "list_objects_v2"
        self.requests.append(request)
        start = int(request.get("ContinuationToken", 0))
        end = min(start + 1000, self.size)
        contents = [
            {"Key": f"archive/night=2026-11-21/{number:09d}.png", "Size": number, "ETag": f'"{number:032x}"'}
            for number in range(start, end)
        ]
        return {"Contents": contents, "IsTruncated": end < self.size, "NextContinuationToken": str(end)}


@pytest.fixture
def pager(monkeypatch: pytest.MonkeyPatch) -> Pager:
    pager = Pager(60_500)
    monkeypatch.setattr(S3FileSystem, "call_s3", staticmethod(pager))
    return pager


def test_s3_pages_become_arrow_batches_and_no_heap_of_objects(pager: Pager) -> None:
    filesystem, _ = Storage(anonymous=True).filesystem("s3://bucket")
    pages: Iterator[pa.RecordBatch] = list_files(Root(filesystem, "bucket/archive", "s3://bucket/archive"))
    first = next(pages)
    assert first.num_rows == 1000
    assert first.to_pylist()[7] == {
        "path": f"night=2026-11-21/{7:09d}.png",
        "size": 7,
        "etag": f"{7:032x}",
        "error": None,
    }
    assert len(pager.requests) == 1  # page by page: nothing is fetched ahead
    tracemalloc.start()
    try:
        batches = [first, *pages]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pa.Table.from_batches(batches).num_rows == 60_500
    assert peak < 4 * 2**20  # as a list of dicts the listing takes 24 MB
    assert [request["Prefix"] for request in pager.requests] == ["archive/"] * 61
    assert not any("Delimiter" in request for request in pager.requests)


def test_s3_lists_real_objects_and_opens_only_wanted_folders(s3: S3Server) -> None:
    bucket = s3.bucket()
    names = [
        *(f"night=1/{name}" for name in AWKWARD),
        "night=2/x.png",
        "__MACOSX/x.png",
        "night=1/.x.png",
        "night=1/deep/y.png",
    ]
    for name in names:
        s3.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=f"an archive/{name}", Body=b"123")
    uri = f"{bucket}/an archive"
    rows = listed(uri, s3.storage)
    assert sorted(rows) == sorted([*names[: len(AWKWARD)], "night=2/x.png", "night=1/deep/y.png"])
    assert {(row["size"], row["etag"]) for row in rows.values()} == {(3, "202cb962ac59075b964b07152d234b70")}

    def wanted(folder: str) -> bool | None:
        return None if not folder else folder == "night=2"

    assert sorted(listed(uri, s3.storage, keep=wanted)) == ["night=2/x.png"]
    assert list(listed(f"{uri}/night=2/x.png", s3.storage)) == ["x.png"]
    assert len(listed(bucket, s3.storage)) == len(rows)
    with pytest.raises(FileNotFoundError):
        open_root(f"{bucket}/nothing", s3.storage)
