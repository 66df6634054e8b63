"""Look samples up by the content of their image, once its bytes have been read: in the tasks that decode images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from patchead.errors import LakeError
from patchead.lake import index_part
from patchead.lake.receipt_index import ReceiptIndex
from patchead.schema import PROMPT_VIEW

_HASHES_BYTES = 1 << 30  # six bytes per receipt: of 178 million
_ROW_GROUPS = 16


@dataclass(frozen=True)
class Contents:
    """Describe what one run looks up by content: no connection. A process reads the hashes once, at its first question.

    It takes six bytes per receipt of the store, up to 1 GB; from a local disk they are mapped, and shared by all
    processes of a node. Of a store with more than 178 million receipts, those of some parts are not found.
    """

    index: ReceiptIndex
    run: str = field(default_factory=lambda: uuid4().hex)
    """Tells this run from the next one, which must not trust what a process has seen before."""

    def find(self, content_hash: str, turn: int | None, role: str | None = None, **same: Any) -> dict[str, Any] | None:
        """Find a receipt of an image of this content, turned like this, whose embedding file is there; or None.

        Views of a prompt are found for the same view alone; a prompt as it is is an image like any other.
        ``same`` are more columns of it, e.g. how it was read and scaled.

        Raises:
            LakeError: a part of the index is damaged, or the lake cannot be read.
        """
        return _loaded(self).find(content_hash, role, {"turn": turn, **same})


class _Loaded:
    """The hashes of one store, and the row groups that were asked for last."""

    def __init__(self, index: ReceiptIndex) -> None:
        self._index = index
        self._load()

    def find(self, content_hash: str, role: str | None, same: Mapping[str, Any]) -> dict[str, Any] | None:
        while True:
            try:
                return self._find(content_hash, role, same)
            except FileNotFoundError as exc:  # a part was joined with others meanwhile
                before = set(self._hashes)
                self._load()
                if before == set(self._hashes):
                    raise LakeError(f"{self._index.folder.uri} lists files that cannot be opened ({exc}).") from exc

    def _load(self) -> None:
        self._hashes: dict[str, index_part.Hashes] = {}
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._there: dict[str, bool] = {}
        size, folder = 0, self._index.folder
        every = self._index.over_parts(lambda part: (part, index_part.read_hashes(folder, part)), at_once=32)
        for part, hashes in every:
            size += hashes.nbytes
            if size > _HASHES_BYTES:
                return
            self._hashes[part] = hashes

    def _find(self, content_hash: str, role: str | None, same: Mapping[str, Any]) -> dict[str, Any] | None:
        for part, hashes in self._hashes.items():
            for group in hashes.row_groups(content_hash):
                rows = self._row_group(part, group)
                for receipt in rows.filter(pc.equal(rows["content_hash"], content_hash)).to_pylist():
                    alike = all(receipt[name] == value for name, value in same.items())
                    if alike and _view(receipt["role"]) == _view(role) and self._exists(receipt["embedding_uri"]):
                        return receipt
        return None

    def _row_group(self, part: str, group: int) -> pa.Table:
        key = (part, group)
        if key not in self._groups:
            with index_part.opened(self._index.folder, part) as file:
                self._groups[key] = self._index.with_folder(index_part.read_group(file, group))
            if len(self._groups) > _ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _exists(self, uri: str) -> bool:
        if uri not in self._there:
            (self._there[uri],) = self._index.exist([uri])
        return self._there[uri]


def _view(role: str | None) -> str | None:
    """The role of a view of a prompt; None for what is embedded as it is."""
    return role if role and role.startswith(PROMPT_VIEW) else None


@lru_cache(maxsize=1)
def _loaded(contents: Contents) -> _Loaded:
    return _Loaded(contents.index)
