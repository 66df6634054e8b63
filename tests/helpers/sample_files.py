"""Small files that archives are made of, good and bad."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from patchead.archive.catalog import Catalog, CatalogRequest, catalog

SCREW_21 = "product=screw/night=2026-11-21"
AWKWARD = ("a b.png", "ü ß 画.PNG", "a#b%20c.png", "cam::1.png", "img[1]*?.png", "100%.jpg", "it's+=&~.webp")


def picture(seed: int = 0, height: int = 12, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: np.ndarray | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


def png(seed: int = 0) -> bytes:
    return encode(picture(seed))


def raw_png(
    width: int, height: int, colour: int, depth: int, rows: bytes, extra: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG by hand: ``rows`` is the filtered data, ``extra`` the chunks before it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


def grey_16(values: np.ndarray, extra: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return raw_png(values.shape[1], values.shape[0], 0, 16, rows, extra)


def tar(members: Sequence[tuple[str, bytes] | tarfile.TarInfo], format: int = tarfile.DEFAULT_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def sparse_tar(name: str, piece: bytes) -> bytes:
    """A tar with one sparse member: ``piece``, then nothing up to 8 GiB."""
    header = bytearray(tar([(name, piece)]))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[257:265] = b"ustar  \0"
    header[386:410] = b"00000000000\0" + b"%011o\0" % len(piece)
    header[483:495] = b"77777777777\0"
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    return bytes(header)


def parquet(columns: Mapping[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), buffer, **options)
    return buffer.getvalue()


def write(folder: Path, files: Mapping[str, bytes]) -> str:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder)


def write_memory(name: str, files: Mapping[str, bytes]) -> str:
    filesystem = MemoryFileSystem()
    for path, data in files.items():
        filesystem.pipe_file(f"/{name}/{path}", data)
    return f"memory://{name}"


def found(uri: str, **settings: Any) -> Catalog:
    return catalog(CatalogRequest(uri, **settings))


def ids(uri: str, **settings: Any) -> list[str]:
    return found(uri, **settings).manifest["image_id"].to_pylist()


def errors(uri: str, **settings: Any) -> dict[str, str | None]:
    """Image id to error; a row has status 'failed' exactly where it has an error."""
    rows = found(uri, **settings).manifest.to_pylist()
    for row in rows:
        assert row["status"] == ("failed" if row["error"] else None)
    return {row["image_id"]: row["error"] for row in rows}
