"""Read the encoded bytes of images: loose files many at a time, shards in one pass. One bad image stops no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import IO, Any

from fsspec.spec import AbstractFileSystem

from patchead.archive.listing import etag_of, is_s3, resolve
from patchead.archive.parquet import BYTES_UNPACKED, MAX_BYTES, read_parquet
from patchead.archive.tar import read_tar
from patchead.errors import ArchiveError, ReplacedFileError, UnreadError
from patchead.storage import VERSION, Storage, explained

# Members of a few hundred KiB follow each other: whole blocks read ahead beat one request per member.
_BLOCK_BYTES = 4 << 20
AT_ONCE = 32
"""Files or byte ranges that are fetched at the same time, and held, at most."""
BYTES_IN_FLIGHT = BYTES_UNPACKED
"""Bytes of them, at most, unless a single one has more."""


def read_images(
    uri: str,
    format: str,
    keys: Sequence[str | None],
    *,
    storage: Storage,
    image_column: str = "image",
    id_column: str | None = None,
    etag: str | None = None,
    max_bytes: int = MAX_BYTES,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Yield, once for each of ``keys`` and in the shard's order, its index and the image's bytes or its error.

    ``uri``, ``format`` (files, tar, parquet), ``keys`` and ``etag`` are those of the manifest; a loose file has the one
    key None. An image of more than ``max_bytes`` is an error; for ``bytes_in_flight`` see `parquet.read_parquet`. Where
    the shard as a whole cannot be read, every key that is left gets that error, and likewise where its ``etag`` is
    another one by now: what was read may be another image.
    """
    left = dict.fromkeys(range(len(keys)))
    limits = {"max_bytes": max_bytes, "bytes_in_flight": bytes_in_flight}
    found = _read(uri, format, [key or "" for key in keys], storage, image_column, id_column, etag, limits)
    failure, more = None, True
    while more and failure is None:
        part, failure, more = _next_part(found, uri)
        if format != "files" and (replaced := _replaced(uri, etag, storage)):
            failure = replaced
            break
        for index, data in part:
            del left[index]
            yield index, data
    for index in left:
        yield index, failure or ArchiveError(f"{keys[index]!r} is no longer in {uri}")


def read_files(
    uris: Sequence[str],
    storage: Storage,
    *,
    sizes: Sequence[int] = (),
    etags: Sequence[str | None] = (),
    first: int | None = None,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Yield index and bytes, or error, of each file in order; of each the ``first`` bytes, or all.

    Files are fetched concurrently and held, as many as `AT_ONCE` and ``bytes_in_flight`` allow, at least one;
    ``sizes`` and ``etags`` are those of the manifest. A file that has another etag by now is an error: it may be
    another image.
    """
    for places in _portions(sizes or [0] * len(uris), first, bytes_in_flight):
        # A portion has one filesystem: a manifest's files lie in one archive.
        filesystem = resolve(next((uris[p] for p in places if VERSION in uris[p]), uris[places[0]]), storage)[0]
        paths = [resolve(uris[place], storage)[1] for place in places]
        ends = None if first is None else [first] * len(paths)
        listed = [etags[place] if etags else None for place in places]
        fetched = _fetch(filesystem, paths, None if first is None else [0] * len(paths), ends, listed)[::-1]
        for place in places:
            data = b"" if _is_past_the_end(fetched[-1]) else fetched[-1]
            del fetched[-1]  # what is used is not held
            yield place, data if isinstance(data, bytes) else _explain(data, uris[place])


def read_ranges(
    uri: str,
    offsets: Sequence[int],
    sizes: Sequence[int],
    storage: Storage,
    *,
    etag: str | None = None,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Yield index and bytes, or error, of each byte range of one shard in order; nothing else of it is read.

    ``offsets``, ``sizes``, in bytes, and ``etag`` are those of the manifest (tar members whose offset is not null).
    Ranges are fetched as the files of `read_files`. A range that the shard no longer holds as a whole is an error, and
    so is every one where the shard has another ``etag`` by now.
    """
    filesystem, path = resolve(uri, storage)
    for places in _portions(sizes, None, bytes_in_flight):
        asked = [(offsets[place], sizes[place]) for place in places if sizes[place]]
        starts, ends = [offset for offset, _ in asked], [offset + size for offset, size in asked]
        fetched = _fetch(filesystem, [path] * len(asked), starts, ends)[::-1] if asked else []
        replaced = _replaced(uri, etag, storage)
        for place in places:
            data = fetched.pop() if sizes[place] else b""
            data = b"" if _is_past_the_end(data) else data
            if replaced is not None:
                yield place, replaced
            elif isinstance(data, bytes):
                yield place, _whole(data, uri, offsets[place], sizes[place])
            else:
                yield place, _explain(data, uri)


@contextmanager
def open_shard(filesystem: AbstractFileSystem, path: str) -> Iterator[IO[bytes]]:
    """Open one shard, to be read from start to end with some seeking."""
    with filesystem.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead") as stream:
        yield stream


def _read(
    uri: str,
    format: str,
    keys: Sequence[str],
    storage: Storage,
    image_column: str,
    id_column: str | None,
    etag: str | None,
    limits: dict[str, int],
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    if format == "files":
        yield from read_files([uri] * len(keys), storage, etags=[etag] * len(keys))
        return
    filesystem, path = resolve(uri, storage)
    with open_shard(filesystem, path) as stream:
        if format == "tar":
            yield from read_tar(stream, keys)
        else:
            yield from read_parquet(stream, keys, image_column=image_column, id_column=id_column, **limits)


def _fetch(
    filesystem: AbstractFileSystem,
    paths: list[str],
    starts: list[int] | None = None,
    ends: list[int] | None = None,
    etags: Sequence[str | None] = (),
) -> list[Any]:
    """Bytes, or what was raised, of each; `ReplacedFileError` where an etag is given and it is another one by now."""
    if is_s3(filesystem):  # with more at once, s3fs asks for each file's size before it fetches it
        known = dict(zip(paths, etags, strict=False))
        return filesystem.cat_ranges(paths, starts, ends, on_error="return", max_concurrency=1, etags=known)
    found = filesystem.cat_ranges(paths, starts, ends, on_error="return")
    for place, etag in enumerate(etags):
        if etag is not None and isinstance(found[place], bytes):
            found[place] = _if_still(etag, filesystem, paths[place], found[place])
    return found


def _if_still(etag: str, filesystem: AbstractFileSystem, path: str, data: bytes) -> bytes | OSError:
    """What was read of a file, unless it is another one than was listed."""
    try:
        return data if etag_of(filesystem, path) == etag else ReplacedFileError("another file of this name")
    except OSError as exc:
        return exc


def _next_part(
    found: Iterator[tuple[int, bytes | ArchiveError]], uri: str
) -> tuple[list[tuple[int, bytes | ArchiveError]], ArchiveError | None, bool]:
    """Some images, what ended the reading of the shard before its end, and whether there may be more."""
    part, held = list[tuple[int, bytes | ArchiveError]](), 0
    try:
        with explained("read", uri, UnreadError):
            for index, data in found:
                part.append((index, data))
                held += len(data) if isinstance(data, bytes) else 0
                if len(part) == AT_ONCE or held > BYTES_IN_FLIGHT:
                    return part, None, True
    except ArchiveError as exc:
        return part, exc, False
    return part, None, False


def _portions(sizes: Sequence[int], first: int | None, most: int) -> Iterator[list[int]]:
    """Places of what is fetched together."""
    portion, total = list[int](), 0
    for place, size in enumerate(sizes):
        wanted = max(0, size if first is None else min(size, first))
        if portion and (len(portion) == AT_ONCE or total + wanted > most):
            yield portion
            portion, total = [], 0
        portion.append(place)
        total += wanted
    if portion:
        yield portion


def _replaced(uri: str, etag: str | None, storage: Storage) -> ArchiveError | None:
    """The error of what was read of a shard that is another one than when it was listed; None where it is not."""
    if etag is None:
        return None
    try:
        with explained("read", uri, ArchiveError):
            now = etag_of(*resolve(uri, storage))
    except ArchiveError as exc:
        return exc
    if now == etag:
        return None
    return _another(uri)


def _another(uri: str) -> ArchiveError:
    return ArchiveError(
        f"{uri} was replaced since it was listed: this may be another image now. A new run lists it again"
    )


def _is_past_the_end(answer: object) -> bool:
    from botocore.exceptions import ClientError

    # S3 answers a range that begins after the file with an error, others with no bytes.
    cause = getattr(answer, "__cause__", None)
    status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(cause, ClientError) else 0
    return bool(status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)


def _whole(data: bytes, uri: str, offset: int, size: int) -> bytes | ArchiveError:
    if len(data) == size:
        return data
    return ArchiveError(
        f"{len(data)} instead of {size} bytes came from byte {offset} of {uri}: it was cut off or replaced since it "
        "was listed"
    )


def _explain(fault: BaseException, uri: str) -> ArchiveError:
    if isinstance(fault, ReplacedFileError):
        return _another(uri)
    if isinstance(fault, FileNotFoundError):
        return ArchiveError(f"cannot read {uri}: it does not exist. It is gone since it was listed")
    try:
        with explained("read", uri, UnreadError):
            raise fault
    except ArchiveError as exc:
        return exc
