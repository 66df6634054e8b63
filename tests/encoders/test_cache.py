from __future__ import annotations

from pathlib import Path

import pytest
import torch

from patchead.encoders.cache import cache_file, cache_folder, cached_copy, read_verified, write_verified
from patchead.errors import WeightsError


class Remote:
    """A filesystem whose one file announces more bytes than it gives."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size

    def info(self, path: str) -> dict[str, object]:
        return {"name": path, "size": self.size, "ETag": '"abc"'}

    def open(self, path: str, mode: str) -> object:
        import io

        return io.BytesIO(self.data)


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "patchead"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "patchead"


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    assert read_verified(path) is None
    write_verified(path, {"a": torch.arange(3.0)})
    state = read_verified(path)
    assert state is not None
    assert torch.equal(state["a"], torch.arange(3.0))
    assert sorted(file.name for file in path.parent.iterdir()) == ["x.safetensors", "x.safetensors.sha256"]
    path.write_bytes(path.read_bytes()[:-1])
    assert read_verified(path) is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(WeightsError, match=r"cannot write the cache folder .*XDG_CACHE_HOME"),
        cache_file(tmp_path / "file" / "x"),
    ):
        pytest.fail("entered")


def test_a_download_that_ends_early_is_not_kept(cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"r://x\.pt ended after 5 of 9 bytes"):
        cached_copy(Remote(b"bytes", 9), "x.pt", "r://x.pt")
    assert list(cache.iterdir()) == []
    assert cached_copy(Remote(b"bytes", 5), "x.pt", "r://x.pt").read_bytes() == b"bytes"
