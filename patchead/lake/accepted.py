"""The table of accepted runs: scores that later nights are compared with, one row per group (method.md §7.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from patchead.kept_tables import KEPT_TABLES
from patchead.lake.kept_rows import keep_rows
from patchead.lake.replaced_groups import sql_literal
from patchead.lake.tables import read_rows
from patchead.schema import SCHEMA_VERSION, table
from patchead.storage import Storage

_SCHEMA = KEPT_TABLES["accepted"]
_SHORT = [name for name in _SCHEMA.names if name not in ("scores", "image_ids")]


@dataclass(frozen=True)
class Accepted:
    """Hold one row of the table: a group of an accepted run."""

    values: dict[str, Any]

    @property
    def name(self) -> str:
        """Give what it was accepted as."""
        return self.values["name"]

    @property
    def keys(self) -> str:
        """Give its group without the night: ``product=screw``."""
        return self.values["keys"]

    @property
    def run_id(self) -> str:
        """Give the run that was accepted."""
        return self.values["run_id"]

    @cached_property
    def scores(self) -> np.ndarray:
        """Give the accepted scores, float64 (n,), ascending."""
        return np.asarray(self.values["scores"], np.float64)

    def without_images(self) -> Accepted:
        """Make the same without the list of images, to be sent to workers."""
        return Accepted({name: value for name, value in self.values.items() if name != "image_ids"})

    @property
    def image_ids(self) -> list[str]:
        """List the images of the scores, in their order."""
        return self.values["image_ids"]


def list_accepted(
    lake_uri: str, storage: Storage, *, keys: Iterable[str] | None = None, name: str | None = None
) -> list[Accepted]:
    """Read what was accepted, the newest first, without scores and images.

    Args:
        lake_uri, storage: the lake.
        keys: of groups without their night; default: of all.
        name: that it was accepted as; default: any.

    Raises:
        LakeError: the table cannot be read.
    """
    return _newest_first(read_rows(lake_uri, storage, "accepted", _SHORT, _filters(keys, name)))


def read_accepted(
    lake_uri: str, storage: Storage, *, keys: Iterable[str] | None = None, name: str | None = None
) -> list[Accepted]:
    """Read what was accepted, as `list_accepted`, with scores and images.

    Raises:
        LakeError: the table cannot be read.
    """
    return _newest_first(read_rows(lake_uri, storage, "accepted", _SCHEMA.names, _filters(keys, name)))


def write_accepted(lake_uri: str, storage: Storage, rows: Sequence[Accepted]) -> None:
    """Write rows of one name, at least one, in the place of those of that name and the same keys.

    Raises:
        LakeError: the table cannot be written.
    """
    (name,) = {row.name for row in rows}
    keys = ", ".join(sorted(sql_literal(row.keys) for row in rows))
    columns = table([row.values | {"schema_version": SCHEMA_VERSION} for row in rows], _SCHEMA)
    replaced = f"name = {sql_literal(name)} AND keys IN ({keys})"
    keep_rows(lake_uri, storage, "accepted", columns, instead_of=replaced)


def _newest_first(rows: pa.Table) -> list[Accepted]:
    ordered = rows.sort_by([("accepted_at", "descending"), ("name", "ascending"), ("keys", "ascending")])
    return [Accepted(values) for values in ordered.to_pylist()]


def _filters(keys: Iterable[str] | None, name: str | None) -> list[tuple[str, str, Any]] | None:
    found: list[tuple[str, str, Any]] = [] if name is None else [("name", "=", name)]
    found += [] if keys is None else [("keys", "in", sorted(keys))]
    return found or None
