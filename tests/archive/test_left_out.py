"""Every file of an archive is an image of the manifest or in a count, wherever it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.archive.left_out import NO_RANGES, NO_SUFFIX, OTHER_SUFFIXES, SYMBOLIC_LINKS, LeftOut
from patchead.errors import ArchiveError
from tests.helpers.s3_server import S3Server
from tests.helpers.sample_files import SCREW_21, found, ids, parquet, png, tar, write, write_memory

CAMERAS_NAMES = ("_DSC0001.JPG", "_MG_7.jpeg", "DSC0002.JPG", "__3.png")
SUFFIXES = ("jfif", "jpe", "pgm", "ppm", "pnm", "jp2", "j2k", "gif", "avif", "JPG", "TIF", "webp")
NOT_READ = {"a.heic": ".heic", "b.DCM": ".dcm", "c.jxl": ".jxl", "d.tar.gz": NO_RANGES, "e.tgz": NO_RANGES}
NOT_READ |= {"f.tar.zst": NO_RANGES, "g.zip": NO_RANGES, "h.TXT": ".txt", "README": NO_SUFFIX}
NO_PICTURES = ("._DSC0001.JPG", "__MACOSX/x.png", ".hidden.png", ".git/x.png", "_delta_log/1.parquet")
PICTURES = (*CAMERAS_NAMES, *(f"x.{suffix}" for suffix in SUFFIXES), "_2026/y.png")


def content() -> dict[str, bytes]:
    """One archive of every way to keep pictures; 18 loose ones, 18 in a tar and 2 in Parquet."""
    names = [*PICTURES, *NOT_READ, *NO_PICTURES]
    inside = tar([(name, png(number)) for number, name in enumerate(names)])
    table = parquet({"id": ["_1", "2"], "image": [png(), png(1)]})
    files = {name: png(number) for number, name in enumerate(names) if name != "_delta_log/1.parquet"}
    files |= {"_shard.tar": inside, "_table.parquet": table, "_delta_log/1.parquet": table}
    return {f"{SCREW_21}/{name}": data for name, data in files.items()}


def check(request: CatalogRequest) -> None:
    result = catalog(request)
    keys = {image_id.removeprefix(f"{SCREW_21}/") for image_id in result.manifest["image_id"].to_pylist()}
    assert keys == {*PICTURES, *(f"_shard.tar#{name}" for name in PICTURES), "_table.parquet#_1", "_table.parquet#2"}
    assert result.manifest["status"].null_count == len(keys)
    expected: dict[str, int] = {}
    for what in NOT_READ.values():
        expected[what] = expected.get(what, 0) + 2  # loose and in the tar
    assert result.left_out.counts == expected
    assert result.ignored == 2 * len(NOT_READ)
    assert sorted(result.left_out.examples[".heic"]) == ["a.heic", f"{SCREW_21}/a.heic"]


def test_every_picture_is_found_or_counted_in_folders_tars_and_parquet(tmp_path: Path) -> None:
    check(CatalogRequest(write(tmp_path, content())))
    check(CatalogRequest(write_memory("left-out", content())))


def test_every_picture_is_found_or_counted_on_s3(s3: S3Server) -> None:
    bucket = s3.bucket()
    for name, data in content().items():
        s3.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=name, Body=data)
    check(CatalogRequest(bucket, storage=s3.storage))


@pytest.mark.parametrize("inside", ["", "lake", "deep/lake"])
def test_the_lakes_own_folders_are_no_part_of_the_archive(tmp_path: Path, inside: str) -> None:
    lake = str(tmp_path / inside).rstrip("/")
    pictures = {f"{SCREW_21}/{name}.png": png() for name in "abc"} | {f"{SCREW_21}/tables/x.png": png()}
    own = {
        f"{inside}/{name}/{SCREW_21}/x.png".lstrip("/"): png() for name in ("embeddings", "heatmaps", "runs", "tables")
    }
    uri = write(tmp_path, pictures | own)
    assert ids(uri, lake=lake) == sorted(pictures)
    assert len(ids(uri, lake=f"{lake}-other")) == len(pictures) + 4


def test_what_is_left_out_is_printed_with_its_remedy_and_comes_back_from_json() -> None:
    left_out = LeftOut()
    for number in range(5):
        left_out.add(".heic", f"{number}[bold].heic")
    left_out.add(NO_RANGES, "a.tgz")
    left_out.add(SYMBOLIC_LINKS, "b.png", 2)
    lines = left_out.lines()
    assert lines[0] == "5 .heic: 0[bold].heic, 1[bold].heic, 2[bold].heic, …"
    assert lines[1].startswith("2 symbolic links in tars: b.png, …. What they point to")
    assert lines[2] == f"1 {NO_RANGES}: a.tgz. Unpack them, or write plain .tar"
    again = LeftOut.of_json(left_out.as_json())
    assert (again.total, again.lines()) == (8, lines)


def test_a_suffix_for_each_file_does_not_fill_the_memory() -> None:
    left_out = LeftOut()
    for number in range(200):
        left_out.add(f".{number:04}", f"x.{number:04}")
    assert left_out.total == 200
    assert len(left_out.counts) == 41
    assert left_out.counts[OTHER_SUFFIXES] == 160


def test_an_archive_of_other_files_alone_says_what_they_are(tmp_path: Path) -> None:
    uri = write(tmp_path, {f"{SCREW_21}/a.heic": b"1", f"{SCREW_21}/b.tar.gz": b"1"})
    with pytest.raises(
        ArchiveError, match=r"no image in(.|\n)*1 \.heic: .*a\.heic(.|\n)*archives that cannot be read by"
    ):
        found(uri)
