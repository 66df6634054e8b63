"""A shard or a loose file that is replaced while a night runs: failed rows, never another picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.nightly.decode import DecodeSettings, encoded
from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.nightly.units import PLACE
from patchead.runtime.inline_executor import InlineExecutor
from patchead.samples.recipe import SampleRecipe
from patchead.settings.load import load_config
from patchead.storage import Storage
from tests.helpers.e2e_tools import SMALL, by_id, png, texture
from tests.helpers.s3_server import S3Server
from tests.helpers.sample_files import parquet, raw_png, tar, write

FOLDER = "night=2026-11-21/product=screw"
Put = Callable[[str, bytes], object]


def plain(value: int) -> bytes:
    """A picture of one grey; all of them have the same length."""
    rows = b"".join(b"\0" + bytes([value, 255 - value] * 8) for _ in range(16))
    return raw_png(16, 16, 0, 8, rows)


def shard(format: str, order: list[int]) -> bytes:
    images = [plain(value) for value in order]
    if format == "tar":
        return tar([(f"{number}.png", data) for number, data in enumerate(images)])
    return parquet({"id": [f"{number}.png" for number in range(len(images))], "image": images})


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Storage, Put]:
    if request.param == "local":
        return str(tmp_path), Storage(), lambda name, data: write(tmp_path, {name: data})
    server: S3Server = request.getfixturevalue("s3")
    bucket = server.bucket()

    def put(name: str, data: bytes) -> None:
        server.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=name, Body=data)

    return bucket, server.storage, put


def settings_of(storage: Storage) -> DecodeSettings:
    return DecodeSettings(storage, "image", None, 10**6, "auto", SampleRecipe(32, "squash", (2, 2)))


@pytest.mark.parametrize("format", ["tar", "parquet"])
def test_every_image_of_a_replaced_shard_says_so(place: tuple[str, Storage, Put], format: str) -> None:
    uri, storage, put = place
    name = f"{FOLDER}/a.{format}"
    first, second = shard(format, [10, 20, 30, 40]), shard(format, [20, 30, 40, 10])
    put(name, first)
    manifest = catalog(CatalogRequest(uri, storage=storage)).manifest.sort_by("image_id")
    images = {column: manifest[column].to_pylist() for column in PLACE}
    assert dict(encoded(images, settings_of(storage))) == {n: plain(v) for n, v in enumerate([10, 20, 30, 40])}
    put(name, second)
    found = dict(encoded(images, settings_of(storage)))
    assert sorted(found) == [0, 1, 2, 3]
    assert all("was replaced since it was listed" in str(error) for error in found.values())


def test_a_loose_file_that_was_replaced_says_so_and_the_others_are_read(place: tuple[str, Storage, Put]) -> None:
    uri, storage, put = place
    for value in (10, 20, 30):
        put(f"{FOLDER}/{value}.png", plain(value))
    manifest = catalog(CatalogRequest(uri, storage=storage)).manifest.sort_by("image_id")
    images = {column: manifest[column].to_pylist() for column in PLACE}
    assert dict(encoded(images, settings_of(storage))) == {n: plain(v) for n, v in enumerate([10, 20, 30])}
    put(f"{FOLDER}/20.png", plain(99))  # of the same length
    for first in (None, 4):
        found = dict(encoded(images, settings_of(storage), first=first))
        assert (found[0], found[2]) == (plain(10)[:first], plain(30)[:first])
        assert "20.png was replaced since it was listed" in str(found[1])


def test_a_loose_file_that_is_replaced_while_it_is_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer comes between the manifest's look at the file and the end of its reading, by a rename."""
    path = tmp_path / FOLDER / "a.png"
    write(tmp_path, {f"{FOLDER}/a.png": plain(10)})
    manifest = catalog(CatalogRequest(str(tmp_path))).manifest
    filesystem, _ = Storage().filesystem(str(tmp_path))
    fetch = filesystem.cat_ranges

    def fetch_then_replace(*arguments: object, **options: object) -> list[bytes]:
        found = fetch(*arguments, **options)
        new = tmp_path / "new"
        new.write_bytes(plain(77))
        new.replace(path)
        return found

    monkeypatch.setattr(filesystem, "cat_ranges", fetch_then_replace)
    ((_, error),) = encoded({column: manifest[column].to_pylist() for column in PLACE}, settings_of(Storage()))
    assert "was replaced since it was listed" in str(error)


@pytest.mark.parametrize("format", ["tar", "parquet"])
def test_a_shard_that_is_replaced_between_two_portions_fails_what_is_left(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchead.archive.readers.AT_ONCE", 2)
    path = tmp_path / FOLDER / f"a.{format}"
    write(tmp_path, {f"{FOLDER}/a.{format}": shard(format, [10, 20, 30, 40, 50])})
    manifest = catalog(CatalogRequest(str(tmp_path))).manifest.sort_by("image_id")
    found = {}
    for index, data in encoded({column: manifest[column].to_pylist() for column in PLACE}, settings_of(Storage())):
        if not found:
            new = tmp_path / "new"
            new.write_bytes(shard(format, [20, 30, 40, 50, 10]))
            new.replace(path)
        found[index] = data
    assert [found[0], found[1]] == [plain(10), plain(20)]  # read, and checked, before
    assert all("was replaced since it was listed" in str(found[index]) for index in (2, 3, 4))


def test_the_rows_of_a_night_say_so(tmp_path: Path) -> None:
    images = [png(texture(seed)) for seed in range(6)]
    archive = tmp_path / "archive"
    path = archive / FOLDER / "a.tar"
    write(archive, {f"{FOLDER}/a.tar": tar([(f"{n}.png", data) for n, data in enumerate(images)])})
    write(archive, {f"{FOLDER}/{n}.png": png(texture(50 + n)) for n in range(6)})
    places = {
        "archive.uri": str(archive),
        "lake.uri": str(tmp_path / "lake"),
        "run.run_id": "r",
        "run.max_failed_fraction": 1,
    }
    config = load_config(None, given=SMALL | places)
    run_night(config, Console(quiet=True), InlineExecutor(), until="catalog")
    path.write_bytes(tar([(f"{n}.png", data) for n, data in enumerate(images[::-1])]))
    (archive / FOLDER / "3.png").write_bytes(png(texture(99)))
    record: RunRecord = run_night(config, Console(quiet=True), InlineExecutor())
    assert (record.images, record.ok, record.failed) == (12, 5, 7)
    failed = {i: row["error"] for i, row in by_id(tmp_path / "lake").items() if row["status"] == "failed"}
    assert f"{FOLDER}/3.png" in failed
    assert all("replaced since it was listed" in error for error in failed.values())
