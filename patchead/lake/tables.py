"""The published Delta tables scores, regions and runs: replaced group by group, one commit per table.

A reader of one table sees a night as it was or as it is, never half of it. Across tables, ``runs`` comes last: a run
that has a row there is complete.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from fsspec.implementations.local import LocalFileSystem

from patchead.arrow_columns import redacted_column
from patchead.errors import LakeError, bad_value
from patchead.kept_tables import KEPT_TABLES
from patchead.lake.replaced_groups import groups_predicate, sql_literal
from patchead.lake.validation import validate
from patchead.schema import PARTITIONS, TABLES, completed
from patchead.storage import Storage, join

Result = TypeVar("Result")

_SCHEMAS = TABLES | KEPT_TABLES
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


def publish(
    lake_uri: str,
    storage: Storage,
    manifest: pa.Table,
    scores: pa.Table,
    regions: pa.Table,
    verdicts: pa.Table,
    run: pa.Table,
) -> bool:
    """Validate the rows of one run, then replace exactly the groups that they belong to.

    Args:
        lake_uri, storage: the lake; its tables are created if they are not there, and get the columns that an earlier
            version did not have.
        manifest: MANIFEST rows of every image of the run.
        scores: SCORES, one row per image.
        regions: REGIONS of those images; may be empty, which removes the groups' earlier regions.
        verdicts: VERDICTS, one row per group.
        run: RUNS, one row.

    Returns:
        False if this run is already published (nothing is done then), else True.

    Raises:
        ValidationError: the rows contradict the manifest; no table was touched.
        LakeError: a table cannot be written. A run that got stuck between two tables is completed by publishing
            it again.
    """
    validate(scores, manifest, regions=regions, verdicts=verdicts, run=run)
    run_id = run["run_id"][0].as_py()
    if published(lake_uri, storage, run_id):
        return False
    for name in TABLES:
        create_table(lake_uri, storage, name)
    scores, regions, verdicts = (_without_empty_product(rows) for rows in (scores, regions, verdicts))
    groups = groups_predicate(scores)
    # Scores behind the others: whoever sees a new score finds its regions and its verdict.
    changes = [
        ("regions", regions, groups),
        ("verdicts", verdicts, groups),
        ("scores", scores, groups),
        ("runs", run, f"run_id = {sql_literal(run_id)}"),
    ]
    for name, rows, predicate in changes:
        if predicate:
            _replace(lake_uri, storage, name, redacted_column(rows, "error"), predicate, run_id)
    return True


def published(lake_uri: str, storage: Storage, run_id: str) -> bool:
    """Tell whether the run ``run_id`` is complete in the tables.

    Raises:
        LakeError: the table of runs cannot be read.
    """
    return bool(published_settings(lake_uri, storage, run_id))


def published_settings(lake_uri: str, storage: Storage, run_id: str | None = None) -> list[str]:
    """Read ``config_json`` of every published run, or of the one that is named.

    Raises:
        LakeError: the table of runs cannot be read.
    """
    filters = [("state", "=", "published")] + ([] if run_id is None else [("run_id", "=", run_id)])
    return read_rows(lake_uri, storage, "runs", ["config_json"], filters)["config_json"].to_pylist()


def record_failure(lake_uri: str, storage: Storage, run: pa.Table) -> bool:
    """Add the row of a run that failed to the table of runs; another one of that run is replaced.

    Args:
        lake_uri, storage: the lake; the table is made if it is not there.
        run: RUNS, one row.

    Returns:
        False if the run is published, which it stays; else True.

    Raises:
        LakeError: the table cannot be written.
    """
    run_id = run["run_id"][0].as_py()
    if published(lake_uri, storage, run_id):
        return False
    create_table(lake_uri, storage, "runs")
    clean = redacted_column(run, "reason")
    _replace(lake_uri, storage, "runs", clean, f"run_id = {sql_literal(run_id)} AND state <> 'published'", run_id)
    return True


def read_rows(
    lake_uri: str, storage: Storage, name: str, columns: list[str], filters: list[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """Read some columns of a table, of the rows that ``filters`` hold for; no row where the table does not exist.

    A column that an earlier version did not have is null.

    Raises:
        LakeError: the table cannot be read.
    """
    uri = delta_uri(lake_uri, storage, name)
    schema = _SCHEMAS[name]

    def read() -> pa.Table:
        with delta_errors("read", uri):
            try:
                table = DeltaTable(uri, storage_options=storage.patient_delta_options(uri))
            except TableNotFoundError:
                return schema.empty_table().select(columns)
            known = [column for column in columns if column in {field.name for field in table.schema().fields}]
            return table.to_pyarrow_table(columns=known, filters=filters)

    return completed(repeated(read), pa.schema([schema.field(column) for column in columns]))


def create_table(lake_uri: str, storage: Storage, name: str) -> None:
    """Make a table where it is not there. Raises `LakeError` where it cannot be made."""
    uri = delta_uri(lake_uri, storage, name)

    def create() -> None:
        DeltaTable.create(
            uri,
            schema=_SCHEMAS[name],
            mode="ignore",
            partition_by=PARTITIONS.get(name, []),
            name=name,
            storage_options=storage.patient_delta_options(uri),
        )

    committed(create, uri)


def _replace(lake_uri: str, storage: Storage, name: str, rows: pa.Table, predicate: str, run_id: str) -> None:
    uri = delta_uri(lake_uri, storage, name)

    def replace() -> None:
        write_deltalake(
            uri,
            rows,
            mode="overwrite",
            predicate=predicate,
            schema_mode="merge",  # a lake of an earlier version lacks columns
            storage_options=storage.patient_delta_options(uri),
            commit_properties=CommitProperties(custom_metadata={"run_id": run_id}),
        )

    committed(replace, uri)


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
        raise _error_of(exc)(f"cannot {action} {uri}: {_one_line(exc)}") from exc
    except OSError as exc:
        raise _error_of(exc)(
            f"cannot {action} {uri}: {_one_line(exc)} Check the address, storage.endpoint_url and the keys "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."
        ) from exc


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


def _without_empty_product(rows: pa.Table) -> pa.Table:
    """A Delta partition value that is empty is null."""
    product = pc.if_else(pc.equal(rows["product"], ""), None, rows["product"])
    return rows.set_column(rows.column_names.index("product"), "product", product)
