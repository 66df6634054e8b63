"""Read the encoded bytes of images: loose files many at a time, shards in one pass. One bad image stops no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from inspect import signature
from typing import IO, Any

from fsspec.spec import AbstractFileSystem

from patchead.archive.listing import resolve
from patchead.archive.parquet import read_parquet
from patchead.archive.tar import read_tar
from patchead.batches import stream_batches
from patchead.errors import ArchiveError
from patchead.storage import Storage, explained

# Members of a few hundred KiB follow each other: whole blocks read ahead beat one request per member.
_BLOCK_BYTES = 4 << 20
AT_ONCE = 32
"""Files or byte ranges that are fetched at the same time, and held."""


def read_images(
    uri: str,
    format: str,
    keys: Sequence[str | None],
    *,
    storage: Storage,
    image_column: str = "image",
    id_column: str | None = None,
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Yield, once for each of ``keys`` and in the shard's order, its index and the image's bytes or its error.

    ``uri``, ``format`` (files, tar, parquet) and ``keys`` are those of the manifest; a loose file has the one key
    None. Where the shard as a whole cannot be read, every key that is left gets that error.
    """
    left = dict.fromkeys(range(len(keys)))
    failure = None
    try:
        with explained("read", uri, ArchiveError):
            for index, data in _read(uri, format, [key or "" for key in keys], storage, image_column, id_column):
                del left[index]
                yield index, data
    except ArchiveError as exc:
        failure = exc
    for index in left:
        yield index, failure or ArchiveError(f"{keys[index]!r} is no longer in {uri}")


def read_files(uris: Sequence[str], storage: Storage) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Yield index and bytes, or error, of each file in order; `AT_ONCE` files are fetched concurrently and held."""
    for batch in stream_batches(enumerate(uris), AT_ONCE):
        # A batch has one filesystem: a manifest's files lie in one archive.
        filesystem = resolve(batch[0][1], storage)[0]
        paths = [resolve(uri, storage)[1] for _, uri in batch]
        for (index, uri), data in zip(batch, _fetch(filesystem, paths), strict=True):
            yield index, data if isinstance(data, bytes) else _explain(data, uri)


def read_ranges(
    uri: str, offsets: Sequence[int], sizes: Sequence[int], storage: Storage
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Yield index and bytes, or error, of each byte range of one shard in order; nothing else of it is read.

    ``offsets`` and ``sizes``, in bytes, are those of the manifest (tar members whose offset is not null). `AT_ONCE`
    ranges are fetched concurrently and held. A range that the shard no longer holds as a whole is an error.
    """
    filesystem, path = resolve(uri, storage)
    for batch in stream_batches(enumerate(zip(offsets, sizes, strict=True)), AT_ONCE):
        asked = [place for _, place in batch if place[1]]
        starts, ends = [offset for offset, _ in asked], [offset + size for offset, size in asked]
        fetched = iter(_fetch(filesystem, [path] * len(asked), starts, ends) if asked else [])
        for index, (offset, size) in batch:
            data = next(fetched) if size else b""
            data = b"" if _is_past_the_end(data) else data
            yield index, _whole(data, uri, offset, size) if isinstance(data, bytes) else _explain(data, uri)


@contextmanager
def open_shard(filesystem: AbstractFileSystem, path: str) -> Iterator[IO[bytes]]:
    """Open one shard, to be read from start to end with some seeking."""
    with filesystem.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead") as stream:
        yield stream


def _read(
    uri: str, format: str, keys: Sequence[str], storage: Storage, image_column: str, id_column: str | None
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    if format == "files":
        yield from read_files([uri] * len(keys), storage)
        return
    filesystem, path = resolve(uri, storage)
    with open_shard(filesystem, path) as stream:
        if format == "tar":
            yield from read_tar(stream, keys)
        else:
            yield from read_parquet(stream, keys, image_column=image_column, id_column=id_column)


def _fetch(
    filesystem: AbstractFileSystem,
    paths: list[str],
    starts: list[int] | None = None,
    ends: list[int] | None = None,
) -> list[Any]:
    options: dict[str, Any] = {}
    if "max_concurrency" in signature(getattr(filesystem, "_cat_file", filesystem.cat_file)).parameters:
        options["max_concurrency"] = 1  # with more, s3fs asks for each file's size before it fetches it
    return filesystem.cat_ranges(paths, starts, ends, on_error="return", **options)


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
    try:
        with explained("read", uri, ArchiveError):
            raise fault
    except ArchiveError as exc:
        return exc
