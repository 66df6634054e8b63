from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from patchead.atomic_files import write_atomically, written_atomically
from patchead.files import Folder
from patchead.storage import Storage


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "old"


def test_a_file_appears_whole_in_a_folder_that_was_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x"
    with written_atomically(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    write_atomically(path, "é")
    assert path.read_bytes() == "é".encode()
    write_atomically(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert [file.name for file in path.parent.iterdir()] == ["x"]


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileExistsError), written_atomically(tmp_path / "file" / "x"):
        pytest.fail("entered")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_bytes_and_then_the_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the calls that a loss of power cannot reorder: file, rename, folder; of new folders their names."""
    path, calls = tmp_path / "a" / "b" / "x", []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number: int) -> None:
        calls.append(Path(f"/proc/self/fd/{number}").readlink())
        fsync(number)

    def noted_replace(source: str, target: str) -> None:
        assert calls[-1] == Path(source)
        assert Path(source).read_bytes() == b"whole"
        calls.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_atomically(path, b"whole")
    assert calls[:2] == [tmp_path, tmp_path / "a"]
    assert calls[-2:] == ["renamed", path.parent]
    calls.clear()
    Folder(str(tmp_path / "c"), Storage()).write("y", lambda sink: sink.write(b"whole"))
    assert calls[0] == tmp_path
    assert calls[-2:] == ["renamed", tmp_path / "c"]


@pytest.mark.parametrize(
    "uri", ["/a/b/", "a/../b", "./", "/", "file:///a/b", "file://a", "~/a", "/a//é b", "file:/a", "a:b"]
)
def test_a_local_path_is_read_as_fsspec_reads_it(uri: str) -> None:
    filesystem, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    found, at = Storage().filesystem(uri)
    assert (type(found), at) == (type(filesystem), path.rstrip("/"))
