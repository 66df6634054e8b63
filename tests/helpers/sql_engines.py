"""Runs what `patchead sql-setup` prints, and statements over it, in an engine's own process: JSON in, JSON out.

    python -m tests.helpers.sql_engines ENGINE < {"setup": text, "statements": [text, …]} > [[row, …], …]

Each row is a list; of a statement that the engine refuses there is its error, a text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Ask = Callable[[str], list[list[Any]]]


@contextmanager
def duckdb(setup: str) -> Iterator[Ask]:
    import duckdb as engine
    from duckdb_extensions import import_extension

    with engine.connect() as connection:
        import_extension("delta", con=connection)  # so that INSTALL finds it without a network
        connection.execute(setup)
        yield lambda sql: [list(row) for row in connection.execute(sql).fetchall()]


@contextmanager
def polars(setup: str) -> Iterator[Ask]:
    names: dict[str, Any] = {}
    exec(setup, names)
    yield lambda sql: [list(row) for row in names["ctx"].execute(sql).collect().rows()]


@contextmanager
def datafusion(setup: str) -> Iterator[Ask]:
    names: dict[str, Any] = {}
    exec(setup, names)
    yield lambda sql: [list(row.values()) for row in names["ctx"].sql(sql).to_pylist()]


@contextmanager
def clickhouse(setup: str) -> Iterator[Ask]:
    import chdb

    connection = chdb.connect(":memory:")  # started in a folder above the lake, which is user_files_path then
    cursor = connection.cursor()
    for statement in setup.split(";\n"):
        if statement.strip():
            cursor.execute(statement)

    def ask(sql: str) -> list[list[Any]]:
        cursor.execute(sql)
        return [list(row) for row in cursor.fetchall()]

    yield ask
    connection.close()


@contextmanager
def spark(setup: str) -> Iterator[Ask]:
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    host, port = server.listening_address
    session = SparkSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
    for statement in setup.split(";\n"):
        if statement.strip():
            session.sql(statement).collect()
    yield lambda sql: [list(row) for row in session.sql(sql).collect()]
    session.stop()
    server.stop()


ENGINES: dict[str, Any] = {each.__name__: each for each in (duckdb, polars, datafusion, clickhouse, spark)}


def main() -> None:
    asked, found = json.load(sys.stdin), []
    with ENGINES[sys.argv[1]](asked["setup"]) as ask:
        for statement in asked["statements"]:
            try:
                found.append(ask(statement))
            except Exception as exc:  # noqa: BLE001 - each engine has its own; the test shows it
                found.append(f"{type(exc).__name__}: {exc}")
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
