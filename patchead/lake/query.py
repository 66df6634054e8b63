"""SQL over the tables, by DuckDB in this process: a view of each, those of what people decide too, and `views`.

Tables that an earlier version wrote are read as what `migration` would make of them.

``regions`` and ``verdicts`` are those of the runs that ``scores`` names: what a run adds before it publishes, and what
a replaced one has left, is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa
from botocore.session import Session
from deltalake import DeltaTable

from patchead.errors import LakeError
from patchead.kept_tables import KEPT_TABLES
from patchead.lake.asked_views import asked_views
from patchead.lake.migration import archives_of, current_runs, is_old, scores_now
from patchead.lake.tables import OF_A_RUN, delta_uri, open_table
from patchead.lake.views import views, whole_addresses
from patchead.result_tables import MAIN
from patchead.schema import TABLES
from patchead.storage import Storage

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_VIEWS = TABLES | KEPT_TABLES
_EXTENSIONS = ("httpfs", "delta")
_CONFIG = {"autoinstall_known_extensions": "false", "allow_unsigned_extensions": "true"}  # see _load_extensions
_FROM_THE_FIRST = ("scores", "regions", "runs")  # tables that every version publishes
_READS = 5
_PUBLISHED = """
SELECT {columns} FROM ({rows}) AS r JOIN (SELECT DISTINCT run_id, group_id, night, product FROM ({scores})) AS s
ON r.run_id = s.run_id AND {night} AND r.group_id IS NOT DISTINCT FROM s.group_id
AND r.product IS NOT DISTINCT FROM s.product
"""
# Equality alone has DuckDB open no more files of scores than of the rows that are asked for.
_NIGHTS = ("r.night = s.night", "(r.night IS NULL AND s.night IS NULL)")


def connect(lake_uri: str, storage: Storage, lane: str = MAIN) -> DuckDBPyConnection:
    """Open an in-memory DuckDB with a view of every table of the schema; each query reads the newest version.

    More of them, such as ``latest`` and ``worst``, are in `views`; they show one lane.

    A table or a column that the lake does not have yet, because an earlier version wrote it or nobody has accepted or
    said anything, is there as empty or null.

    Raises:
        LakeError: DuckDB is not installed, nothing is published in the lake yet, or it cannot be read.
    """
    wanted = set(_reads(lane))
    return _connected(_duckdb(), lake_uri, storage, _tables(lake_uri, storage, wanted), lane, wanted)


def _reads(lane: str) -> dict[str, str]:
    """Of every view a text with the names of those that it reads."""
    return {name: "scores runs" if name in OF_A_RUN else "runs" for name in _VIEWS} | views(lane)


def _connected(
    duckdb: ModuleType,
    lake_uri: str,
    storage: Storage,
    tables: Mapping[str, DeltaTable | None],
    lane: str,
    wanted: Set[str],
) -> DuckDBPyConnection:
    try:
        connection = duckdb.connect(config=_CONFIG)
        _load_extensions(connection)
        if delta_uri(lake_uri, storage, "scores").startswith("s3://"):
            _create_secret(connection, storage)
        rows = {name: _select(lake_uri, storage, name, table) for name, table in tables.items()}
        if is_old(tables["runs"]):
            connection.register("current_runs", current_runs(lake_uri, storage))
            rows["runs"] = "SELECT * FROM current_runs"
        of_tables = sorted(wanted & _VIEWS.keys(), key=lambda name: name != "runs")  # which scores are joined with
        for name in of_tables:
            connection.execute(f"CREATE VIEW {name} AS {_published(lake_uri, storage, name, rows)}")
        for name, text in views(lane).items():
            if name in wanted:
                connection.execute(f"CREATE VIEW {name} AS {text}")
    except duckdb.Error as exc:
        raise LakeError(f"DuckDB cannot read the tables of {lake_uri}: {exc}") from exc
    return connection


def query(lake_uri: str, storage: Storage, sql: str, lane: str = MAIN) -> pa.Table:
    """Run SQL over the views of :func:`connect` and return the last statement's result.

    Raises:
        LakeError: as `query_all`, or there is no statement.
    """
    results = query_all(lake_uri, storage, sql, lane)
    if not results:
        raise LakeError("the query has no statement")
    return results[-1]


def query_all(lake_uri: str, storage: Storage, sql: str, lane: str = MAIN) -> list[pa.Table]:
    """Run one or more statements over the views of :func:`connect`, one after the other.

    An engine opens one table after the other: where a run has published in between, all are run again. Views that no
    statement names are not made; where a name is found missing, all are made and the statements run again.

    Raises:
        LakeError: as :func:`connect`, a statement is refused, and the text says why, or runs published each time.
    """
    duckdb = _duckdb()
    reads = _reads(lane)
    try:
        try:
            return _answers(duckdb, lake_uri, storage, sql, lane, asked_views(sql, reads))
        except duckdb.CatalogException:
            return _answers(duckdb, lake_uri, storage, sql, lane, set(reads))
    except duckdb.Error as exc:
        raise LakeError(f"the query failed: {exc}") from exc


def _answers(
    duckdb: ModuleType, lake_uri: str, storage: Storage, sql: str, lane: str, wanted: Set[str]
) -> list[pa.Table]:
    for _ in range(_READS):
        tables = _tables(lake_uri, storage, wanted)
        connection = _connected(duckdb, lake_uri, storage, tables, lane, wanted)
        try:
            found = [connection.execute(one).to_arrow_table() for one in connection.extract_statements(sql)]
        finally:
            connection.close()
        before, now = tables["scores"], open_table(lake_uri, storage, "scores")  # whose commits publish
        if before and now and before.version() == now.version():
            return found
    raise LakeError(f"runs published to {lake_uri} each of the {_READS} times that it was read. Ask again.")


def _duckdb() -> ModuleType:
    try:
        import duckdb

        for name in _EXTENSIONS:
            import_module(f"duckdb_extension_{name}")
    except ModuleNotFoundError as exc:
        raise LakeError("SQL needs DuckDB, which is not installed. Run: pip install 'patchead[query]'") from exc
    return duckdb


def _tables(lake_uri: str, storage: Storage, wanted: Set[str]) -> dict[str, DeltaTable | None]:
    """The tables as they are now; None where an earlier version did not make the table."""
    found = {name: open_table(lake_uri, storage, name) for name in _VIEWS if name in {*_FROM_THE_FIRST, *wanted}}
    if missing := next((name for name in _FROM_THE_FIRST if found[name] is None), None):
        raise LakeError(
            f"there is no table {missing} in {lake_uri}: nothing is published there yet. "
            "Check lake.uri, or run `patchead score` first."
        )
    return found


def _select(lake_uri: str, storage: Storage, name: str, table: DeltaTable | None) -> str:
    there = set() if table is None else {field.name for field in table.schema().fields}
    instead = _of_old_rows(lake_uri, storage, name) if is_old(table) else {}
    columns = [_column(field, field.name in there, instead.get(field.name)) for field in _VIEWS[name]]
    if not there:
        return f"SELECT {', '.join(columns)} WHERE false"
    uri = delta_uri(lake_uri, storage, name).replace("'", "''")
    return f"SELECT {', '.join(columns)} FROM delta_scan('{uri}')"


def _of_old_rows(lake_uri: str, storage: Storage, name: str) -> dict[str, str]:
    """SQL of columns that rows of an earlier version lack."""
    return scores_now(archives_of(lake_uri, storage)) if name == "scores" else {"lane": f"'{MAIN}'"}


def _column(field: pa.Field, is_there: bool, instead: str | None) -> str:
    name = f'"{field.name}"'
    if instead is not None:
        return f"coalesce({name}, {instead}) AS {name}" if is_there else f"{instead} AS {name}"
    return name if is_there else f"CAST(NULL AS {_type(field.type)}) AS {name}"


def _published(lake_uri: str, storage: Storage, name: str, rows: dict[str, str]) -> str:
    """The rows of a table that belong to what scores holds."""
    if name == "scores":
        columns = ", ".join(f"s.{column}" for column in _VIEWS[name].names)
        lake = delta_uri(lake_uri, storage, "scores").removesuffix("/tables/scores")
        return whole_addresses(f"({rows[name]})", lake, columns)
    if name not in OF_A_RUN:
        return rows[name]
    columns = ", ".join(f'r."{column}"' for column in _VIEWS[name].names)
    parts = [
        _PUBLISHED.format(columns=columns, rows=rows[name], scores=rows["scores"], night=night) for night in _NIGHTS
    ]
    return " UNION ALL ".join(parts)


def _type(of: pa.DataType) -> str:
    """DuckDB's name of a column's type."""
    if pa.types.is_list(of):
        return f"{_type(of.value_type)}[]"
    names = {"string": "VARCHAR", "int32": "INTEGER", "int64": "BIGINT", "bool": "BOOLEAN", "date32[day]": "DATE"}
    names |= {"float": "FLOAT"}
    return (names | {"double": "DOUBLE", "timestamp[us, tz=UTC]": "TIMESTAMPTZ"})[str(of)]


def _load_extensions(connection: DuckDBPyConnection) -> None:
    """From the installed packages; DuckDB would download them, and keep copies in the home directory.

    They are trusted as all that pip installed. DuckDB would hash their 100 MB on every start, half a second, to compare
    signatures: it does so again for whatever else a statement asks it to load.
    """
    for name in _EXTENSIONS:
        package = Path(import_module(f"duckdb_extension_{name}").__path__[0])
        version = f"v{import_module('duckdb').__version__}"
        connection.load_extension(str(package / "extensions" / version / f"{name}.duckdb_extension"))
    connection.execute("SET allow_unsigned_extensions = false")


def _create_secret(connection: DuckDBPyConnection, storage: Storage) -> None:
    """The endpoint and the keys that the other libraries find; as parameters, so that no error quotes them."""
    options = {"region": storage.region_name}
    if storage.endpoint:
        scheme, _, host = storage.endpoint.rpartition("://")
        options |= {"endpoint": host.rstrip("/"), "url_style": "path", "use_ssl": str(scheme != "http").lower()}
    if not storage.anonymous:
        options |= _keys()
    settings = ", ".join(f"{name} ${name}" for name in options)
    connection.execute(f"CREATE SECRET (TYPE s3, {settings})", options)


def _keys() -> dict[str, str]:
    credentials = Session().get_credentials()
    if credentials is None:
        raise LakeError(
            "no S3 keys found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.anonymous for a public "
            "bucket."
        )
    found = credentials.get_frozen_credentials()
    keys = {"key_id": found.access_key, "secret": found.secret_key, "session_token": found.token}
    return {name: value for name, value in keys.items() if value}
