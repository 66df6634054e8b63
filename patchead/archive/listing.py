"""List the files of an archive as Arrow record batches: path, size, etag.

Listings run to millions of files, so no more than one batch of them (or one folder, or one S3 page) is ever held as
Python objects.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.spec import AbstractFileSystem

from patchead.batches import stream_batches
from patchead.storage import Storage, told_time

BATCH_ROWS = 4096
SUFFIXES = {
    "files": (
        *("png", "jpg", "jpeg", "jpe", "jfif", "bmp", "tif", "tiff", "webp"),
        *("gif", "pgm", "ppm", "pnm", "jp2", "j2k", "avif"),
    ),
    "tar": ("tar",),
    "parquet": ("parquet",),
}
LISTING = pa.schema(
    [
        ("path", pa.string()),  # relative to the archive, '/' between the parts
        ("size", pa.int64()),  # bytes, -1 where unknown
        ("etag", pa.string()),
        ("error", pa.string()),  # why this file cannot be read, where the listing already knows
    ]
)

# Three answers about a folder: False, nothing below it is wanted; True, all of it is; None, look into its folders.
Keep = Callable[[str], "bool | None"]

# Of tools: macOS's notes, and what Delta and Spark keep next to data. Cameras' own names begin with '_' too.
_TOOLS_FOLDERS = ("__MACOSX", "_delta_log", "_spark_metadata", "_temporary", "_change_data")
HIDDEN = rf"(^|/)(\.|({'|'.join(_TOOLS_FOLDERS)})(/|$))"
_S3_FOLDER_LEVELS = 6  # deeper, one flat listing is cheaper than a request per folder


class _File(NamedTuple):
    path: str
    size: int
    etag: str | None
    error: str | None = None


@dataclass(frozen=True)
class Root:
    """Hold an archive's place: ``uri`` and ``path`` of its folder, the name of its one file where it is no folder."""

    filesystem: AbstractFileSystem
    path: str
    uri: str
    file: str | None = None


def open_root(uri: str, storage: Storage) -> Root:
    """Find out what ``uri`` is: a folder, a bucket, or one file.

    Raises:
        FileNotFoundError, PermissionError, OSError: as the filesystem raises them.
    """
    filesystem, path = resolve(uri, storage)
    base = path if _is_local(filesystem) else uri.rstrip("/")
    if filesystem.info(path)["type"] != "file":
        return Root(filesystem, path, base)
    return Root(filesystem, path.rpartition("/")[0], base.rpartition("/")[0], path.rpartition("/")[2])


def resolve(uri: str, storage: Storage) -> tuple[AbstractFileSystem, str]:
    """Find the filesystem and the path of one file. Unlike a plain fsspec URL, a name may contain '::'."""
    if "::" not in uri or re.match(r"\w+::", uri):
        return storage.filesystem(uri)
    anchor = re.match(r"[\w+.-]+://[^/]*|", uri)
    filesystem, _ = storage.filesystem((anchor.group() if anchor else "") or "/")
    return filesystem, filesystem._strip_protocol(uri)


def etag_of(filesystem: AbstractFileSystem, path: str) -> str | None:
    """Look up what changes when a file changes, as `list_files` tells it.

    Raises:
        OSError, botocore errors: as the filesystem raises them.
    """
    if _is_local(filesystem):
        return _dated(Path(path).stat())
    return _from_info(path, filesystem.info(path)).etag


def list_files(root: Root, keep: Keep = lambda folder: True) -> Iterator[pa.RecordBatch]:
    """Yield batches of `LISTING`, in no order, without hidden files and folders ('.' first, or a tool's own).

    Raises:
        OSError, botocore errors: as the filesystem raises them; a folder that cannot be listed is never passed over.
    """
    files: Iterator[_File]
    if root.file is not None:
        files = iter([_single(root, root.file)])
    elif _is_local(root.filesystem):
        files = _scan(root.path, keep)
    elif is_s3(root.filesystem):
        yield from _s3_pages(root, keep)
        return
    else:
        files = _folders(root, keep)
    for chunk in stream_batches(files, BATCH_ROWS):
        yield _batch(chunk)


def formats_of(paths: pa.Array) -> pa.Array:
    """Tell the format of each path by its suffix, in any case: ``files``, ``tar``, ``parquet`` or null."""
    masks = [pc.match_substring_regex(paths, suffix_pattern(name)) for name in SUFFIXES]
    return pc.case_when(pc.make_struct(*masks), *[pa.scalar(name) for name in SUFFIXES])


def suffix_pattern(format: str) -> str:
    """Make the regular expression of the file names of a format."""
    return rf"(?i)\.({'|'.join(SUFFIXES[format])})$"


def hidden(paths: pa.Array) -> pa.Array:
    """Tell whether a part of the path begins with '.' or is a tool's own folder."""
    return pc.match_substring_regex(paths, HIDDEN)


def storable(name: str) -> tuple[str, str | None]:
    """Give ``name`` and null; where it is no text (bytes that are not UTF-8), an escaped form and the error."""
    try:
        name.encode()
    except UnicodeEncodeError:
        escaped = name.encode("utf-8", "backslashreplace").decode()
        return escaped, "the file name is not valid UTF-8; rename it"
    return name, None


def _scan(root: str, keep: Keep) -> Iterator[_File]:
    # Links to folders are followed, except to a folder that the link lies in.
    stack: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while stack:
        folder, above = stack.pop()
        full = f"{root}/{folder}"
        status = Path(full).stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        with os.scandir(full) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if _is_hidden(entry.name):
                    continue
                if not entry.is_dir():
                    yield _from_entry(entry, path)
                elif keep(path) is not False:
                    stack.append((path, above | {here}))


def _from_entry(entry: os.DirEntry[str], path: str) -> _File:
    path, error = storable(path)
    if not entry.is_file():
        return _File(path, -1, None, error or "neither a file nor a link to one")
    try:
        status = entry.stat()
    except FileNotFoundError:
        return _File(path, -1, None, error or "the file vanished while the archive was listed")
    return _File(path, status.st_size, _dated(status), error)


def _dated(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _folders(root: Root, keep: Keep) -> Iterator[_File]:
    # fsspec's own walk() omits folders below the first that cannot be listed, so the loop is here.
    stack = [""]
    while stack:
        folder = stack.pop()
        full = f"{root.path}/{folder}" if folder else root.path
        for info in root.filesystem.ls(full, detail=True):
            name = info["name"].rstrip("/").rpartition("/")[2]
            path = f"{folder}/{name}" if folder else name
            if not name or _is_hidden(name) or info["name"].rstrip("/") == full:
                continue
            if info["type"] != "directory":
                yield _from_info(path, info)
            elif keep(path) is not False:
                stack.append(path)


def _from_info(path: str, info: dict[str, Any]) -> _File:
    size = -1 if info.get("size") is None else int(info["size"])
    if etag := info.get("ETag") or info.get("etag"):
        return _File(path, size, str(etag).strip('"'))
    return _File(path, size, f"{size}-{told_time(info) or ''}")


def _single(root: Root, name: str) -> _File:
    full = f"{root.path}/{name}"
    if not _is_local(root.filesystem):
        return _from_info(name, root.filesystem.info(full))
    status = Path(full).stat()
    name, error = storable(name)
    return _File(name, status.st_size, _dated(status), error)


def _s3_pages(root: Root, keep: Keep) -> Iterator[pa.RecordBatch]:
    bucket, _, prefix = root.path.partition("/")
    prefix = f"{prefix}/" if prefix else ""
    stack = [""]
    while stack:
        folder = stack.pop()
        flat = keep(folder.rstrip("/")) or folder.count("/") >= _S3_FOLDER_LEVELS
        request = {"Bucket": bucket, "Prefix": prefix + folder} | ({} if flat else {"Delimiter": "/"})
        while True:
            page = root.filesystem.call_s3("list_objects_v2", **request)
            below = [entry["Prefix"][len(prefix) :] for entry in page.get("CommonPrefixes", ())]
            stack += [path for path in below if not _is_hidden(path) and keep(path.rstrip("/")) is not False]
            yield _s3_batch(page.get("Contents", ()), len(prefix))
            if not page.get("IsTruncated"):
                break
            request["ContinuationToken"] = page["NextContinuationToken"]


def _s3_batch(objects: Iterable[dict[str, Any]], skip: int) -> pa.RecordBatch:
    files = [
        _File(item["Key"][skip:], item["Size"], item.get("ETag", "").strip('"') or None)
        for item in objects
        if not item["Key"].endswith("/")  # a folder's marker
    ]
    batch = _batch(files)
    return batch.filter(pc.invert(hidden(batch["path"])))


def _batch(files: list[_File]) -> pa.RecordBatch:
    columns = [pa.array([file[index] for file in files], field.type) for index, field in enumerate(LISTING)]
    return pa.record_batch(columns, schema=LISTING)


def _is_hidden(path: str) -> bool:
    name = path.rstrip("/").rpartition("/")[2]
    return name.startswith(".") or name in _TOOLS_FOLDERS


def _is_local(filesystem: AbstractFileSystem) -> bool:
    return "file" in _protocols(filesystem)


def is_s3(filesystem: AbstractFileSystem) -> bool:
    """Tell whether files are objects of S3."""
    return "s3" in _protocols(filesystem)


def _protocols(filesystem: AbstractFileSystem) -> tuple[str, ...]:
    return (filesystem.protocol,) if isinstance(filesystem.protocol, str) else tuple(filesystem.protocol)
