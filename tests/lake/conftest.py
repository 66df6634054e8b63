"""A lake on a local disk and one on S3: what holds for one must hold for the other."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from patchead.storage import Storage
from tests.helpers.s3_server import S3Server


class Lake(NamedTuple):
    uri: str
    storage: Storage


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), Storage())


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def lake(request: pytest.FixtureRequest) -> Lake:
    if request.param == "local":
        return request.getfixturevalue("local")
    s3: S3Server = request.getfixturevalue("s3")
    return Lake(f"{s3.bucket()}/lake", s3.storage)
