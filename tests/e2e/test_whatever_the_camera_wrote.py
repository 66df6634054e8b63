"""One run over every sort of file: each picture is scored, a row that says why not, or in a count that is printed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console

from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.nightly.run_report import print_record
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL, by_id, png, texture
from tests.helpers.s3_server import S3Server
from tests.helpers.sample_files import parquet, tar

FOLDER = "night=2026-11-21/product=screw"
Put = Callable[[str, bytes], None]


def tiff(values: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    tifffile.imwrite(sink, values, **options)
    return sink.getvalue()


def saved(image: np.ndarray, format: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, format, **options)
    return sink.getvalue()


def scored() -> dict[str, bytes]:
    """Pictures by file name, all to be scored."""
    pictures = [texture(seed) for seed in range(30)]
    deep = [picture.astype(np.uint16) * 257 for picture in pictures]
    jpeg = saved(pictures[9], "JPEG", quality=95)
    grey = pictures[0][..., 0]
    return {
        "planar.tif": tiff(np.moveaxis(deep[0], 2, 0), photometric="rgb", planarconfig="separate"),
        "white-is-0.tif": tiff(65535 - deep[1][..., 0], photometric="miniswhite", compression="zstd"),
        "tiles.tiff": tiff(deep[2], photometric="rgb", tile=(16, 16), compression="lzma", byteorder=">"),
        "nir.tif": tiff(np.dstack([deep[3], deep[3][..., :1] * 0]), photometric="rgb", extrasamples=["unspecified"]),
        "cmyk.tif": tiff(np.dstack([65535 - deep[4], deep[4][..., :1] * 0]), photometric="separated"),
        "_DSC0001.JPG": saved(pictures[5], "JPEG"),
        "_MG_0002.jpeg": saved(pictures[6], "JPEG", progressive=True),
        "DSC0003.JPE": saved(pictures[7], "JPEG"),
        "a.jfif": saved(pictures[8], "JPEG"),
        "no-end.jpg": jpeg[:-2],
        "a.pgm": saved(pictures[10][..., 0], "PPM"),
        "a.ppm": saved(pictures[11], "PPM"),
        "deep.pnm": b"P5 48 48 4095\n" + (pictures[12][..., 0].astype(">u2") * 16).tobytes(),
        "a.jp2": saved(pictures[13], "JPEG2000"),
        "a.j2k": saved(pictures[14], "JPEG2000", no_jp2=True),
        "a.gif": saved(pictures[15], "GIF"),
        "a.avif": saved(pictures[16], "AVIF"),
        "a.webp": saved(pictures[17], "WEBP"),
        "a.bmp": saved(pictures[18], "BMP"),
        "12.jpg": imagecodecs.jpeg8_encode(grey.astype(np.uint16) * 16, level=95, bitspersample=12),
    }


def failed() -> dict[str, tuple[bytes, str]]:
    """Pictures that cannot be scored, and a part of the reason."""
    picture = texture(40, 96)
    jpeg, bmp = saved(picture, "JPEG", quality=95), saved(picture, "BMP")
    clear = np.dstack([picture, np.zeros((96, 96), np.uint8)])
    return {
        "half.jpg": (jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2), "truncated: cut off"),
        "closed.jpg": (jpeg[: len(jpeg) // 2] + b"\xff\xd9", "truncated: cut off"),
        "half.bmp": (bmp[: len(bmp) // 2] + bytes(len(bmp) // 2), "truncated: cut off and filled up"),
        "clear.png": (saved(clear, "PNG"), "nothing can be seen"),
        "float.tif": (tiff(picture[..., 0].astype(np.float32)), "floating-point"),
        "mosaic.tif": (tiff(picture[..., 0], photometric="cfa"), "Bayer mosaic (CFA)"),
        "text.png": (b"no image", "not an image"),
        "empty.jpg": (b"", "empty file"),
    }


IGNORED = {"a.heic": b"1", "b.HEIC": b"1", "c.dcm": b"1", "d.tar.gz": b"1", "notes.txt": b"1"}


def shards() -> dict[str, bytes]:
    """A tar of everything, joined to another one, with links; and Parquet without paths."""
    everything = scored() | {name: data for name, (data, _) in failed().items()} | IGNORED
    first = tar([(f"in/{name}", data) for name, data in everything.items()])
    links = []
    for name, type in (("hard.png", tarfile.LNKTYPE), ("soft.png", tarfile.SYMTYPE)):
        link = tarfile.TarInfo(name)
        link.type, link.linkname = type, "z.png"
        links.append(link)
    second = tar([("z.png", png(texture(50))), *links])
    rows = [{"bytes": png(texture(60 + number)), "path": None} for number in range(4)]
    return {"a.tar": first + second, "b.parquet": parquet({"image": rows})}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, object], Put]:
    if request.param == "local":
        root = tmp_path / "archive"

        def write(name: str, data: bytes) -> None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)

        return str(root), {}, write
    server: S3Server = request.getfixturevalue("s3")
    bucket = server.bucket()

    def put(name: str, data: bytes) -> None:
        server.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=name, Body=data)

    settings = {"storage.endpoint_url": server.endpoint, "storage.region": server.region}
    return bucket, settings, put


def test_every_picture_is_scored_or_told_or_counted(
    archive: tuple[str, dict[str, object], Put], tmp_path: Path
) -> None:
    uri, settings, put = archive
    for name, data in (scored() | {n: d for n, (d, _) in failed().items()} | IGNORED | shards()).items():
        put(f"{FOLDER}/{name}", data)
    lake = str(tmp_path / "lake")
    given = SMALL | {"archive.uri": uri, "lake.uri": lake, "run.max_failed_fraction": 1} | settings
    out = io.StringIO()
    console = Console(file=out, width=200)
    record: RunRecord = run_night(load_config(None, given=given), console, InlineExecutor())
    print_record(record, console)

    rows = {image_id.removeprefix(f"{FOLDER}/"): row for image_id, row in by_id(lake).items()}
    inside = {f"a.tar#in/{name}": name for name in (*scored(), *failed())}
    for name, row in rows.items():
        reason = failed().get(inside.get(name, name))
        assert (row["status"], reason is None or reason[1] in row["error"]) == ("failed" if reason else "ok", True), row
    ok, bad = 2 * len(scored()) + 2 + 4, 2 * len(failed())  # loose and in the tar; z.png and its hard link; Parquet
    assert (record.images, record.ok, record.failed, record.skipped) == (ok + bad, ok, bad, 0)
    text = out.getvalue()
    assert f"found {ok + bad} images = {ok} scored + {bad} failed + 0 skipped" in text
    assert f"{2 * len(IGNORED) + 1} other files ignored:" in text
    for line in ("4 .heic: ", "2 .dcm: ", "2 .txt: ", "2 archives that cannot be read by ranges: ", "1 symbolic links"):
        assert line in text, text
    assert record.as_json()["ignored"][".heic"]["count"] == 4


def test_a_product_with_the_longest_name_is_published(tmp_path: Path) -> None:
    product = "螺" * 27
    folder = tmp_path / "archive" / product / "2026-11-21"
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.png").write_bytes(png(texture(number)))
    long = tmp_path / "archive" / ("螺" * 28) / "2026-11-21"
    long.mkdir(parents=True)
    (long / "a.png").write_bytes(png(texture(9)))
    given = {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake"), "explain.heatmaps": "all"}
    given |= {"archive.template": "{product}/{night}/{file}", "run.max_failed_fraction": 0.5}
    record = run_night(load_config(None, given=SMALL | given), Console(quiet=True), InlineExecutor())
    assert (record.ok, record.failed) == (6, 1)
    rows = by_id(tmp_path / "lake").values()
    assert {row["product"] for row in rows if row["status"] == "ok"} == {product}
    assert all("too long for a folder" in row["error"] for row in rows if row["status"] == "failed")
