"""The project's two hashes: BLAKE2b names things, SHA-256 says whether bytes are the expected ones.

Ids and file names in the lake and the cache come from here: another digest of the same text would orphan them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_CHUNK = 1 << 22


def text_digest(text: str, size: int = 16) -> str:
    """Hash a text to ``2 * size`` hex digits, ``size`` from 1 to 64 bytes."""
    return joined_digest([text], size)


def joined_digest(texts: Iterable[str], size: int = 16) -> str:
    """Hash texts as if they were one, without joining them: ``2 * size`` hex digits."""
    found = hashlib.blake2b(digest_size=size)
    for text in texts:
        found.update(text.encode())
    return found.hexdigest()


def content_hash(data: bytes) -> str:
    """Identify the bytes of an image by 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def bytes_sha256(data: bytes) -> str:
    """Hash bytes by SHA-256 to 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def joined_sha256(parts: Iterable[bytes | memoryview]) -> str:
    """Hash all parts one after the other by SHA-256, without joining them: 64 hex digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash a file by SHA-256 to 64 hex digits; the file is never in memory as a whole.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return joined_sha256(iter(lambda: file.read(_CHUNK), b""))
