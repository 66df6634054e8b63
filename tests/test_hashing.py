"""The digests are in lakes and caches that exist: these values may never change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import torch

from patchead.arrow_columns import digest
from patchead.encoders.weights import state_digest
from patchead.hashing import bytes_sha256, content_hash, file_sha256, joined_digest, joined_sha256, text_digest


def test_a_text_has_the_digests_it_always_had() -> None:
    assert text_digest("night=2026-11-21/product=screw") == "2249e778b3b5fcdab20c4680254b21db"
    assert text_digest("é", 6) == "fd327df7a50a"
    assert joined_digest(["night=2026-11-21", "/product=screw"]) == text_digest("night=2026-11-21/product=screw")


def test_bytes_have_the_digests_they_always_had(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000  # more than one portion of a file
    assert content_hash(b"x") == hashlib.blake2b(b"x", digest_size=16).hexdigest()
    expected = hashlib.sha256(data).hexdigest()
    (tmp_path / "x").write_bytes(data)
    assert bytes_sha256(data) == file_sha256(tmp_path / "x") == joined_sha256([data[:7], memoryview(data)[7:]])
    assert bytes_sha256(data) == expected


def test_tables_and_weights_have_the_digests_they_always_had() -> None:
    rows = pa.table({"a": ["x", None], "b": ["1", "2"]})
    assert digest([rows, rows], ["a", "b"]) == hashlib.blake2b(b"x\t1\n\0\t2x\t1\n\0\t2", digest_size=16).hexdigest()
    state = {"b": torch.arange(3, dtype=torch.int32), "a": torch.ones(1, 2)}
    found = hashlib.sha256(b"a torch.float32 (1, 2)\n" + state["a"].numpy().tobytes())
    found.update(b"b torch.int32 (3,)\n" + state["b"].numpy().tobytes())
    assert state_digest(state) == found.hexdigest()
