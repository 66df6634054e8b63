"""What other SQL engines need to see the views of `patchead query`: statements, or a few lines of Python, to print.

They read the Delta tables themselves; nothing of this package is in between. For engines that know no other lake than
one in object storage, the lake's address must be one that they reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from patchead.errors import LakeError, SettingsError, bad_value
from patchead.kept_tables import KEPT_TABLES
from patchead.lake.migration import is_old
from patchead.lake.tables import OF_A_RUN, delta_uri, open_table
from patchead.lake.views import KEYS, views, whole_addresses
from patchead.result_tables import MAIN
from patchead.schema import TABLES
from patchead.storage import Storage

_TYPES = ("string", "int32", "int64", "bool", "date32[day]", "double", "timestamp[us, tz=UTC]")
_ASKED = TABLES | {"feedback": KEPT_TABLES["feedback"]}
_LACKING = "FROM (SELECT 1 AS one) AS nothing WHERE one = 0"


@dataclass(frozen=True)
class _Engine:
    """How one engine is told of a table and of a view."""

    types: tuple[str, ...]
    """Its names of `_TYPES`."""
    table: str
    """Makes ``{name}_table`` of the table at ``{uri}``."""
    view: str = "CREATE OR REPLACE VIEW {name} AS\n{select};"
    first: str = ""
    """What is done once, before."""
    last: str = ""
    keys: str = KEYS
    """Its way of `views.KEYS`."""


_SQL_TYPES = ("VARCHAR", "INTEGER", "BIGINT", "BOOLEAN", "DATE", "DOUBLE")
_PYTHON_TYPES = ("VARCHAR", "INT", "BIGINT", "BOOLEAN", "DATE", "DOUBLE", "TIMESTAMP")
ENGINES = {
    "duckdb": _Engine(
        types=(*_SQL_TYPES, "TIMESTAMPTZ"),
        first="INSTALL delta; LOAD delta;",
        table="CREATE OR REPLACE VIEW {name}_table AS SELECT * FROM delta_scan('{uri}');",
    ),
    "polars": _Engine(
        types=_PYTHON_TYPES,
        first="# pip install polars deltalake\nimport polars\n\nctx = polars.SQLContext()",
        table='ctx.register("{name}_table", polars.scan_delta("{uri}"))',
        view='ctx.register("{name}", ctx.execute("""\n{select}\n"""))',
        keys="CASE WHEN strpos(group_id, 'night=') > 0 THEN concat(left(group_id, strpos(group_id, 'night=') - 1), "
        "substr(group_id, strpos(group_id, 'night=') + 16)) ELSE group_id END",
        last='# print(ctx.execute("SELECT * FROM worst LIMIT 5").collect())',
    ),
    "datafusion": _Engine(
        types=_PYTHON_TYPES,
        first="# pip install datafusion deltalake\nfrom datafusion import SessionContext\n"
        "from deltalake import DeltaTable\n\nctx = SessionContext()",
        table='ctx.register_table("{name}_table", DeltaTable("{uri}"))',
        view='ctx.register_view("{name}", ctx.sql("""\n{select}\n"""))',
        last='# print(ctx.sql("SELECT * FROM worst LIMIT 5"))',
    ),
    "clickhouse": _Engine(
        types=tuple(
            f"Nullable({name})" for name in ("String", "Int32", "Int64", "Bool", "Date32", "Float64", "DateTime64(6)")
        ),
        first="-- A folder must lie below user_files_path; on S3: deltaLake('https://…', 'key', 'secret').",
        table="CREATE OR REPLACE VIEW {name}_table AS SELECT * FROM deltaLakeLocal('{uri}');",
    ),
    "spark": _Engine(
        types=("STRING", *_PYTHON_TYPES[1:]),
        first="-- Spark with delta-spark, or Sail (pip install pysail pyspark-client).",
        table="CREATE OR REPLACE TEMPORARY VIEW {name}_table AS SELECT * FROM delta.`{uri}`;",
        view="CREATE OR REPLACE TEMPORARY VIEW {name} AS\n{select};",
    ),
    "trino": _Engine(
        types=(*_SQL_TYPES, "TIMESTAMP(6) WITH TIME ZONE"),
        first="-- Not run here. A Delta Lake connector called delta with delta.register-table-procedure.enabled=true.\n"
        "CREATE SCHEMA IF NOT EXISTS delta.patchead;\nUSE delta.patchead;",
        table="CALL delta.system.register_table('patchead', '{name}_table', '{uri}');",
    ),
    "athena": _Engine(
        types=(*_SQL_TYPES, "TIMESTAMP"),
        first="-- Not run here. One statement at a time, in the database that is chosen in the console.",
        table="CREATE EXTERNAL TABLE {name}_table LOCATION '{uri}' TBLPROPERTIES ('table_type' = 'DELTA');",
    ),
    "snowflake": _Engine(
        types=(*_SQL_TYPES, "TIMESTAMP_TZ"),
        first="-- Not run here. VOLUME is an external volume over the lake's bucket; its paths are relative to it.\n"
        "CREATE CATALOG INTEGRATION IF NOT EXISTS patchead_delta CATALOG_SOURCE = OBJECT_STORE TABLE_FORMAT = DELTA "
        "ENABLED = TRUE;",
        table="CREATE OR REPLACE ICEBERG TABLE {name}_table CATALOG = 'patchead_delta' EXTERNAL_VOLUME = 'VOLUME' "
        "BASE_LOCATION = 'tables/{name}' AUTO_REFRESH = TRUE; -- {uri}",
    ),
    "bigquery": _Engine(
        types=("STRING", "INT64", "INT64", "BOOL", "DATE", "FLOAT64", "TIMESTAMP"),
        first="-- Not run here. With a default data set; CONNECTION is a connection of it that may read the bucket.",
        table="CREATE OR REPLACE EXTERNAL TABLE {name}_table WITH CONNECTION `CONNECTION` "
        "OPTIONS (format = 'DELTA_LAKE', uris = ['{uri}']);",
    ),
}


def sql_setup(engine: str, lake_uri: str, storage: Storage, lane: str = MAIN) -> str:
    """Write what an engine needs to see the views of `patchead query`.

    Args:
        engine: one of `ENGINES`.
        lake_uri, storage: the lake; which columns its tables have is looked up.
        lane: that ``latest`` and what builds on it show.

    Raises:
        SettingsError: the engine is not known.
        LakeError: the lake cannot be read, has no tables, or an earlier version wrote them.
    """
    if engine not in ENGINES:
        raise SettingsError(bad_value("engine", engine, f"one of {', '.join(ENGINES)}"))
    of, there = ENGINES[engine], _columns(lake_uri, storage)
    lake = delta_uri(lake_uri, storage, "scores").removesuffix("/tables/scores")
    lines = [of.first] if of.first else []
    lines += [of.table.format(name=name, uri=f"{lake}/tables/{name}") for name in there]
    names = dict(zip(_TYPES, of.types, strict=True))
    for name in ("runs", "scores", "regions", "verdicts", "feedback"):
        columns = [_column(field, field.name in there.get(name, ()), names) for field in _ASKED[name]]
        select = f"SELECT {', '.join(columns)} " + (f"FROM {name}_table AS t" if name in there else _LACKING)
        if name == "scores":
            own = ", ".join(f"s.{field.name} AS {field.name}" for field in _ASKED[name])
            select = whole_addresses(f"({select})", lake, own)
        elif name in OF_A_RUN and name in there:
            select += (
                "\nJOIN (SELECT DISTINCT run_id AS its_run, group_id AS its_group FROM scores_table) AS p\n"
                "ON t.run_id = p.its_run AND t.group_id = p.its_group"
            )
        lines.append(of.view.format(name=name, select=select))
    lines += [of.view.format(name=name, select=select) for name, select in views(lane, of.types[0], of.keys).items()]
    return "\n".join([*lines, *([of.last] if of.last else [])]) + "\n"


def _columns(lake_uri: str, storage: Storage) -> dict[str, set[str]]:
    """The columns of the tables that are there."""
    found = {}
    for name in _ASKED:
        table = open_table(lake_uri, storage, name)
        if table is not None:
            if name in TABLES and is_old(table):
                raise LakeError(
                    f"an earlier version of patchead wrote {lake_uri}. Publish a night into it, or run `patchead gc "
                    f"--lake {lake_uri} --apply`: both take its tables to this version."
                )
            found[name] = {field.name for field in table.schema().fields}
    if missing := [name for name in TABLES if name not in found]:
        raise LakeError(f"there is no table {missing[0]} in {lake_uri}: nothing is published there yet.")
    return found


def _column(field: pa.Field, is_there: bool, names: dict[str, str]) -> str:
    instead = f"CAST(NULL AS {names[str(field.type)]})"
    return f"{f't.{field.name}' if is_there else instead} AS {field.name}"
