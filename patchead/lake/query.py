"""SQL over the published tables, by DuckDB in this process: the views scores, regions and runs."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa
from botocore.session import Session
from deltalake import DeltaTable

from patchead.errors import LakeError
from patchead.lake.tables import delta_errors, delta_uri
from patchead.schema import TABLES
from patchead.storage import Storage

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXTENSIONS = ("httpfs", "delta")


def connect(lake_uri: str, storage: Storage) -> DuckDBPyConnection:
    """Open an in-memory DuckDB with views ``scores``, ``regions`` and ``runs``; each query reads the newest version.

    Raises:
        LakeError: DuckDB is not installed, nothing is published in the lake yet, or it cannot be read.
    """
    duckdb = _duckdb()
    _require_tables(lake_uri, storage)
    try:
        connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
        _load_extensions(connection)
        if delta_uri(lake_uri, storage, "scores").startswith("s3://"):
            _create_secret(connection, storage)
        for name in TABLES:
            uri = delta_uri(lake_uri, storage, name).replace("'", "''")
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM delta_scan('{uri}')")
    except duckdb.Error as exc:
        raise LakeError(f"DuckDB cannot read the tables of {lake_uri}: {exc}") from exc
    return connection


def query(lake_uri: str, storage: Storage, sql: str) -> pa.Table:
    """Run one SQL statement over the views of :func:`connect`.

    Raises:
        LakeError: as :func:`connect`, or the statement is refused; the text says why.
    """
    connection = connect(lake_uri, storage)
    try:
        return connection.execute(sql).to_arrow_table()
    except _duckdb().Error as exc:
        raise LakeError(f"the query failed: {exc}") from exc
    finally:
        connection.close()


def _duckdb() -> ModuleType:
    try:
        import duckdb
        import duckdb_extensions  # noqa: F401 - is it there?
    except ModuleNotFoundError as exc:
        raise LakeError("SQL needs DuckDB, which is not installed. Run: pip install 'patchead[query]'") from exc
    return duckdb


def _require_tables(lake_uri: str, storage: Storage) -> None:
    for name in TABLES:
        uri = delta_uri(lake_uri, storage, name)
        with delta_errors("read", uri):
            there = DeltaTable.is_deltatable(uri, storage_options=storage.delta_options(uri))
        if not there:
            raise LakeError(
                f"there is no table {name} in {lake_uri}: nothing is published there yet. "
                "Check lake.uri, or run `patchead score` first."
            )


def _load_extensions(connection: DuckDBPyConnection) -> None:
    """From the installed packages; DuckDB would download them."""
    from duckdb_extensions import import_extension

    for name in _EXTENSIONS:
        import_extension(name, con=connection)
        connection.load_extension(name)


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
