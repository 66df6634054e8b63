"""One description of where bytes are, for the three libraries that read them: fsspec, delta-rs and DuckDB.

Keys are never part of it: they come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN), from an AWS profile or from an instance role, on every node.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from patchead.errors import FullDiskError, LakeError, PatcheadError

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 30
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")  # names, by the store
VERSION = "?versionId="
"""What s3fs would cut off a key; here it is a part of the name."""


@dataclass(frozen=True)
class Storage:
    """Hold S3 endpoint, region, access mode and how failures are met; plain values, so that it travels to the workers.

    A request is made ``attempts`` times at most; an operation with all its attempts, pauses and its body takes
    ``deadline_seconds`` at most.

    Other fsspec protocols (file, memory, gs, abfs …) take their defaults from their own environment.
    """

    endpoint_url: str | None = None
    region: str | None = None
    anonymous: bool = False
    attempts: int = 4
    deadline_seconds: float = 300.0

    @property
    def endpoint(self) -> str | None:
        """Find the S3 endpoint: the setting, else the environment's; None is AWS."""
        return self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")

    @property
    def region_name(self) -> str:
        """Find the S3 region: the setting, else the environment's, else us-east-1."""
        return self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    def filesystem(self, uri: str) -> tuple[AbstractFileSystem, str]:
        """Find the fsspec filesystem of ``uri`` and the path inside it (no trailing slash)."""
        protocol = fsspec.utils.get_protocol(uri)
        if protocol == "file" and "::" not in uri:
            return _local(), LocalFileSystem._strip_protocol(uri).rstrip("/")
        if protocol not in ("s3", "s3a"):
            filesystem, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
            return filesystem, path.rstrip("/")
        from patchead.patient_s3 import PatientS3

        kind = _literal_keys() if VERSION in uri else PatientS3
        return kind(use_listings_cache=False, **self._s3fs_options()), kind._strip_protocol(uri).rstrip("/")

    def _s3fs_options(self) -> dict[str, Any]:
        return {
            "anon": self.anonymous,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": self.region_name},
            "config_kwargs": {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": min(READ_TIMEOUT_S, self.deadline_seconds),
                "retries": {"total_max_attempts": self.attempts, "mode": "standard"},
            },
            "attempts": self.attempts,
            "deadline_seconds": self.deadline_seconds,
        }

    def delta_options(self, uri: str) -> dict[str, str] | None:
        """Make the ``storage_options`` of delta-rs for ``uri``, and of others; None for a local path."""
        if not uri.startswith(("s3://", "s3a://")):
            return None
        options = {"AWS_REGION": self.region_name}
        if self.endpoint:
            options |= {"AWS_ENDPOINT_URL": self.endpoint}
            if self.endpoint.startswith("http://"):
                options |= {"AWS_ALLOW_HTTP": "true"}
        if self.anonymous:
            options |= {"AWS_SKIP_SIGNATURE": "true"}
        return options

    def patient_delta_options(self, uri: str) -> dict[str, str] | None:
        """Add the retry policy to `delta_options`, in words that delta-rs alone knows."""
        if (options := self.delta_options(uri)) is None:
            return None
        return options | {"max_retries": str(self.attempts - 1), "retry_timeout": f"{self.deadline_seconds:g}s"}


@cache
def _local() -> LocalFileSystem:
    """The one for all local paths: fsspec takes twenty times as long to find it."""
    return LocalFileSystem(use_listings_cache=False)


def join(uri: str, *parts: str) -> str:
    """Join ``uri`` and path parts with one slash between them."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def told_time(info: Mapping[str, Any]) -> Any:
    """Give what fsspec tells of when a file was written, in the store's own form; None where it tells nothing."""
    return next((info[name] for name in _TIMES if info.get(name)), None)


def written_at(info: Mapping[str, Any]) -> float | None:
    """Read `told_time` as seconds since 1970; None where there is none, or in another form."""
    when = told_time(info)
    if isinstance(when, dt.datetime):
        return when.timestamp()
    return float(when) if isinstance(when, (int, float)) else None


def storage_errors() -> tuple[type[Exception], ...]:
    """List what storage libraries raise when a store or the way to it fails."""
    from aiohttp import ClientError as AiohttpError  # of a body that was cut, no OSError
    from botocore.exceptions import BotoCoreError, ClientError

    return OSError, BotoCoreError, ClientError, AiohttpError, asyncio.TimeoutError


@lru_cache(maxsize=1)
def _literal_keys() -> type[AbstractFileSystem]:
    """The S3 filesystem, with a key that contains `VERSION` taken as it is written."""
    from patchead.patient_s3 import PatientS3

    instead = "\0" + VERSION[1:]

    class LiteralKeys(PatientS3):
        def split_path(self, path: str) -> tuple[str, str, str | None]:
            bucket, key, version = super().split_path(path.replace(VERSION, instead))
            return bucket, key.replace(instead, VERSION), version

    return LiteralKeys


def _is_archived(fault: BaseException) -> bool:
    code = getattr(fault.__cause__, "response", {}).get("Error", {}).get("Code")
    return code == "InvalidObjectState" or "InvalidObjectState" in str(fault)


@contextmanager
def explained(action: str, uri: str, error: Callable[[str], PatcheadError]) -> Iterator[None]:
    """Turn what a storage library raises into one ``error`` that says what was tried, where, and what to check.

    Programming errors (TypeError, KeyError …) pass through unchanged.
    """
    try:
        yield
    except FileNotFoundError as exc:
        raise error(f"cannot {action} {uri}: it does not exist. Check the address and the bucket.") from exc
    except PermissionError as exc:
        if _is_archived(exc):
            raise error(
                f"cannot {action} {uri}: it is archived (S3 Glacier or Deep Archive). Restore it first, or exclude it."
            ) from exc
        raise error(
            f"cannot {action} {uri}: access denied ({exc}). Check the keys (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY), the bucket policy, or the folder's permissions."
        ) from exc
    except storage_errors() as exc:
        check = remedy(str(exc), "Check the address, storage.endpoint_url and the keys.")
        made = FullDiskError if error is LakeError and _is_full(str(exc)) else error
        raise made(f"cannot {action} {uri}: {type(exc).__name__}: {exc}. {check}") from exc


def remedy(fault: str, otherwise: str) -> str:
    """Say what to do about a storage library's ``fault``: make room where a disk is full."""
    return "Make room there; the same run id then goes on." if _is_full(fault) else otherwise


def _is_full(fault: str) -> bool:
    return any(words in fault for words in ("No space left on device", "Disk quota exceeded"))
