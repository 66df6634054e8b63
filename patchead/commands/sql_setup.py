"""`patchead sql-setup`: what another SQL engine needs to see the views of `patchead query`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from patchead.commands.options import OneLakeOption, SetOption, storage_of


def sql_setup(
    engine: Annotated[
        str,
        typer.Argument(
            help="duckdb, polars, datafusion, clickhouse, spark, trino, athena, snowflake or bigquery.",
            show_default=False,
        ),
    ],
    *,
    lake: OneLakeOption,
    lane: Annotated[str, typer.Option(help="Which results latest, worst, failed and drift show (run.lane).")] = "main",
    overrides: SetOption = None,
) -> None:
    """Print what another SQL engine needs to see scores, regions, verdicts, runs, latest, worst, failed and drift.

    Statements, or for Polars and DataFusion lines of Python. The engine reads the Delta tables itself.
    """
    from patchead.lake.sql_setup import sql_setup

    sys.stdout.write(sql_setup(engine, lake, storage_of(lake, overrides), lane))
