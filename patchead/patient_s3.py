"""S3 with one retry policy: requests by botocore, bodies that were cut here, and a deadline over both.

s3fs repeats what botocore has repeated already: four by five requests, and no end to the time. Here s3fs repeats
nothing. A request is repeated by botocore, with jittered back-off, on answers 500 to 504, on throttling, and when a
connection fails. A body that was cut or stalled is fetched again by us. Nothing takes longer than the deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from http.client import IncompleteRead
from typing import Any, TypeVar

from aiohttp import ClientError as AiohttpError
from botocore.exceptions import HTTPClientError
from s3fs import S3FileSystem
from s3fs.core import S3File

from patchead.errors import ReplacedFileError
from patchead.retries import RETRIES

Result = TypeVar("Result")

_LONGEST_PAUSE_S = 10.0
_CUT = (AiohttpError, IncompleteRead, HTTPClientError, asyncio.TimeoutError)
_inside: ContextVar[bool] = ContextVar("inside", default=False)
_listed: ContextVar[str | None] = ContextVar("listed", default=None)


class RequestError(OSError):
    """A request that failed as often as it may be tried, or took too long. No `TimeoutError`: fsspec drops its text."""


class PatientS3(S3FileSystem):
    """Be s3fs with ``attempts`` per request and body, and ``deadline_seconds`` for an operation with all of them."""

    retries = 1

    def __init__(self, *arguments: Any, attempts: int = 4, deadline_seconds: float = 300.0, **options: Any) -> None:
        self.attempts, self.deadline_seconds = attempts, deadline_seconds
        super().__init__(*arguments, **options)

    async def _call_s3(self, method: str, *arguments: Any, **options: Any) -> Any:
        async def call() -> Any:
            try:
                answer = await super(PatientS3, self)._call_s3(method, *arguments, **options)
            except OSError as exc:
                _count(getattr(exc.__cause__, "response", None))
                raise
            except _CUT as exc:  # tried as often as it may be: no body that was cut
                raise RequestError(f"{type(exc).__name__}: {exc}") from exc
            _count(answer)
            if method == "get_object" and _listed.get() not in (None, answer.get("ETag", "").strip('"')):
                answer["Body"].close()
                raise ReplacedFileError("another object of this name")
            return answer

        return await self._in_time(call, method)

    @wraps(S3FileSystem._cat_file)  # who asks for its arguments is told those of s3fs
    async def _cat_file(
        self, path: str, *arguments: Any, etags: Mapping[str, str | None] | None = None, **options: Any
    ) -> Any:
        """Fetch a file, or raise `ReplacedFileError` where ``etags`` has another one for its path than it has now."""

        async def fetch() -> Any:
            return await super(PatientS3, self)._cat_file(path, *arguments, **options)

        token = _listed.set((etags or {}).get(path))
        try:
            return await self._in_time(lambda: self._again(fetch), path)
        finally:
            _listed.reset(token)

    @wraps(S3FileSystem._get_file)
    async def _get_file(self, *arguments: Any, **options: Any) -> Any:
        async def copy() -> Any:
            return await super(PatientS3, self)._get_file(*arguments, **options)

        return await self._again(copy)  # of any size: its requests have the deadline, its body has none

    async def _again(self, fetch: Callable[[], Awaitable[Result]]) -> Result:
        """Fetch what was cut off again, ``attempts`` times in all."""
        for attempt in range(1, self.attempts):
            try:
                return await fetch()
            except _CUT:
                RETRIES.add(1)
            await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.2 * 2**attempt)))
        return await fetch()

    async def _in_time(self, work: Callable[[], Awaitable[Result]], what: str) -> Result:
        """The work, within the deadline of the outermost operation."""
        if _inside.get():
            return await work()
        token = _inside.set(True)
        try:
            return await asyncio.wait_for(work(), self.deadline_seconds)
        except asyncio.TimeoutError as exc:
            told = f"no answer to {what} in {self.deadline_seconds:g} s (storage.deadline_seconds)"
            raise RequestError(told) from exc
        finally:
            _inside.reset(token)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> S3File:
        file = super()._open(path, mode=mode, **options)
        if mode == "rb":
            file.__class__ = _PatientFile
            file.cache.fetcher = file._fetch_range
        return file


class _PatientFile(S3File):
    """A file whose ranges are fetched as whole files are."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start=start, end=end)) if end > start else b""


def _count(answer: object) -> None:
    metadata = answer.get("ResponseMetadata") if isinstance(answer, Mapping) else None
    RETRIES.add(int((metadata or {}).get("RetryAttempts", 0)))
