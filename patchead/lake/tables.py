"""The Delta tables of a lake: where each is, how its rows are read, and how a commit is tried until it is done."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from fsspec.implementations.local import LocalFileSystem

from patchead.errors import LakeError, bad_value
from patchead.kept_tables import KEPT_TABLES
from patchead.lake.replaced_groups import sql_literal
from patchead.result_tables import MAIN, OPTIONAL, TABLES_VERSION
from patchead.schema import LATER_TABLES, PARTITIONS, TABLES, completed
from patchead.storage import Storage, join, remedy

Result = TypeVar("Result")

OF_A_RUN = ("regions", "verdicts")
"""Tables whose rows count where `scores` names their run."""
VERSION_NOTE = f"patchead, version {TABLES_VERSION} of the columns"
"""Description of a table whose rows are all of this version."""
_SCHEMAS = TABLES | LATER_TABLES | KEPT_TABLES
_COMMIT_ATTEMPTS = 10
_LONGEST_PAUSE_S = 5.0
_CUT_OFF = re.compile(
    r"error sending request|response body|incomplete message|before message length|onnection (reset|closed)"
)
_CONTROL = re.compile(r"\x1b\[[0-9;]*m|\s+")


def table_uri(lake_uri: str, name: str) -> str:
    """Say where a table of `schema.TABLES` is in a lake."""
    return join(lake_uri, "tables", name)


def require_plain(lake_uri: str) -> None:
    """Refuse an address that Delta decodes ('%') or cuts ('?', '#'): two tables would end up in one folder.

    Raises:
        LakeError: the address has such a character.
    """
    if set(lake_uri) & set("%?#"):
        raise LakeError(bad_value("lake.uri", lake_uri, "an address without '%', '?' and '#'"))


def delta_uri(lake_uri: str, storage: Storage, name: str) -> str:
    """Write :func:`table_uri` as the Delta libraries take it: an absolute path, or a URL.

    Raises:
        LakeError: the lake's address has a character that they misread.
    """
    require_plain(lake_uri)
    uri = table_uri(lake_uri, name)
    filesystem, path = storage.filesystem(uri)
    if isinstance(filesystem, LocalFileSystem):
        return str(path)
    return f"s3://{path}" if uri.startswith("s3a://") else uri


def open_table(lake_uri: str, storage: Storage, name: str) -> DeltaTable | None:
    """Open the newest version of a table; None where it does not exist.

    Raises:
        LakeError: it cannot be read.
    """
    uri = delta_uri(lake_uri, storage, name)
    with delta_errors("read", uri):
        try:
            return DeltaTable(uri, storage_options=storage.patient_delta_options(uri))
        except TableNotFoundError:
            return None


def read_as_written(
    lake_uri: str, storage: Storage, name: str, columns: Sequence[str] | None = None
) -> pa.Table | None:
    """Read a table with the columns that whoever wrote it gave it; None where it does not exist.

    Args:
        lake_uri, storage, name: as `table_uri`.
        columns: the only ones, of those that it has; default: all.

    Raises:
        LakeError: it cannot be read.
    """

    def read() -> pa.Table | None:
        table = open_table(lake_uri, storage, name)
        if table is None:
            return None
        with delta_errors("read", table.table_uri):
            return _selected(table, [c for c in pa.schema(table.schema()).names if columns is None or c in columns])

    return repeated(read)


def without_unused(rows: pa.Table, there: Collection[str] = ()) -> pa.Table:
    """Leave out the columns of `OPTIONAL` that say nothing, but for those that are ``there`` already."""
    unused = OPTIONAL & {*rows.column_names} - {*there}
    return rows.drop_columns([name for name in unused if rows[name].null_count == rows.num_rows])


def read_rows(
    lake_uri: str, storage: Storage, name: str, columns: list[str], filters: list[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """Read some columns of a table, of the rows that ``filters`` hold for; no row where the table does not exist.

    A column that an earlier version did not have is null.

    Raises:
        LakeError: the table cannot be read.
    """
    schema = _SCHEMAS[name]

    def read() -> pa.Table:
        table = open_table(lake_uri, storage, name)
        if table is None:
            return schema.empty_table().select(columns)
        with delta_errors("read", table.table_uri):
            known = {field.name for field in table.schema().fields}
            return _selected(table, [column for column in columns if column in known], filters)

    return completed(repeated(read), pa.schema([schema.field(column) for column in columns]))


def _selected(table: DeltaTable, columns: list[str], filters: list[tuple[str, str, Any]] | None = None) -> pa.Table:
    """Read by delta-rs itself.

    Not by a data set of pyarrow: its filters do not compare texts of files that delta-rs has written over, and its
    threads may still hold delta-rs's file system, an object of Python, when the process ends: they abort it then.
    """
    wanted = ", ".join(f'"{column}"' for column in columns)
    asked = f"SELECT {wanted} FROM asked WHERE {_where(filters or [])}"
    found = pa.table(QueryBuilder().register("asked", table).execute(asked))
    schema = pa.schema(table.schema())
    return found.cast(pa.schema([schema.field(column) for column in columns]))


def _where(filters: list[tuple[str, str, Any]]) -> str:
    """SQL that holds where all of these do: of "=" and "in"."""
    clauses = ["true"]
    for column, sign, value in filters:
        if sign == "in":
            clauses.append(f'"{column}" IN ({", ".join(map(sql_literal, value))})' if value else "false")
        else:
            clauses.append(f'"{column}" {sign} {sql_literal(value)}')
    return " AND ".join(clauses)


def of_lane(rows: pa.Table, lane: str = MAIN) -> pa.Table:
    """Keep the rows of one lane; those that an earlier version wrote, and nothing has migrated yet, are of `MAIN`."""
    return rows.filter(pc.equal(pc.fill_null(rows["lane"], MAIN), lane)).drop_columns(["lane"])


def create_table(lake_uri: str, storage: Storage, name: str) -> None:
    """Make a table where it is not there. Raises `LakeError` where it cannot be made.

    Columns of `OPTIONAL` come with the first row that says something there.
    """
    uri = delta_uri(lake_uri, storage, name)
    columns = [column for column in _SCHEMAS[name] if name not in TABLES or column.name not in OPTIONAL]

    def create() -> None:
        DeltaTable.create(
            uri,
            schema=pa.schema(columns),
            mode="ignore",
            partition_by=PARTITIONS.get(name, []),
            name=name,
            description=VERSION_NOTE if name in TABLES | LATER_TABLES else None,
            configuration={"delta.checkpointInterval": "10"},  # DuckDB reads the log anew for every query
            storage_options=storage.patient_delta_options(uri),
        )

    committed(create, uri)


def committed(commit: Callable[[], None], uri: str, *, repeatable: bool = True) -> None:
    """Run ``commit``, which opens the table itself, until no other writer is in its way.

    Where the answer was cut off it may have been done: it is run again if it is ``repeatable``, twice as good as once.
    """
    for attempt in range(_COMMIT_ATTEMPTS):
        try:
            with delta_errors("publish to", uri):
                return commit()
        except CommitFailedError as exc:
            refused = exc
        except CutOffError as exc:  # it may have been committed
            if not repeatable:
                raise
            refused = exc
        _pause(attempt)
    why = "the answer was cut off" if isinstance(refused, CutOffError) else "other writers were quicker"
    raise LakeError(
        f"cannot publish to {uri}: {why} {_COMMIT_ATTEMPTS} times ({_one_line(refused)}). "
        "Run again under the same run id."
    ) from refused


@contextmanager
def delta_errors(action: str, uri: str) -> Iterator[None]:
    """Turn Delta's errors into one line; ``CommitFailedError`` and ``TableNotFoundError`` pass to their handlers."""
    try:
        yield
    except (CommitFailedError, TableNotFoundError):
        raise
    except DeltaError as exc:
        text = f"cannot {action} {uri}: {_one_line(exc)}"
        raise _error_of(exc)(f"{text} {remedy(str(exc), '')}".rstrip()) from exc
    except OSError as exc:
        check = "Check the address, storage.endpoint_url and the keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."
        raise _error_of(exc)(f"cannot {action} {uri}: {_one_line(exc)} {remedy(str(exc), check)}") from exc


class CutOffError(LakeError):
    """A store did not end what it began to answer; delta-rs does not ask again."""


def _error_of(exc: Exception) -> type[LakeError]:
    text = str(exc)
    return CutOffError if _CUT_OFF.search(text) and "onnection refused" not in text else LakeError


def repeated(read: Callable[[], Result]) -> Result:
    """Read again what was cut off, `_COMMIT_ATTEMPTS` times in all.

    Raises:
        LakeError: as ``read``.
    """
    for attempt in range(1, _COMMIT_ATTEMPTS):
        try:
            return read()
        except CutOffError:
            _pause(attempt)
    return read()


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.1 * 2**attempt)))


def _one_line(exc: Exception, length: int = 400) -> str:
    text = _CONTROL.sub(" ", str(exc)).strip()
    return text if len(text) <= length else f"{text[:length]}…"
