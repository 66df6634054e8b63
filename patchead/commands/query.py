"""`patchead query`: SQL over a lake's tables, in the form that a person, a spreadsheet or a program reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchead.commands.options import OneLakeOption, SetOption, out, storage_of
from patchead.errors import SettingsError
from patchead.printed import say

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["table", "csv", "json", "parquet", "markdown"]


def query(
    sql: Annotated[
        str | None,
        typer.Argument(help="Over scores, regions, verdicts, runs, latest, worst, failed, drift."),
    ] = None,
    *,
    lake: OneLakeOption,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Statements of a file; - is the input.")] = None,
    lane: Annotated[str, typer.Option(help="Which results latest, worst, failed and drift show (run.lane).")] = "main",
    form: Annotated[Format, typer.Option("--format", help="How results are written.")] = "table",
    overrides: SetOption = None,
) -> None:
    """Run SQL over the published tables with DuckDB and write the results.

    Between several statements stands a semicolon. `docs/sql.md` answers what is asked in the morning.
    """
    from patchead.lake.query import query_all

    statements = _statements(sql, file)
    results = query_all(lake, storage_of(lake, overrides), statements, lane)
    if form in ("csv", "json", "parquet") and len(results) != 1:
        raise SettingsError(
            f"--format {form} is of one statement; got {len(results)}. Give one, or take table or markdown."
        )
    for number, result in enumerate(results):
        if number:
            say(out, "")
        _write(result, form)


def _statements(sql: str | None, file: Path | None) -> str:
    if sql is not None and file is None:
        return sql
    if file is None or sql is not None:
        got = "neither" if file is None else "both"
        raise SettingsError(f"query takes statements or --file; got {got}. Give one of them.")
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"--file {file} cannot be read: {exc}.") from exc


def _write(result: pa.Table, form: Format) -> None:
    from patchead.commands import query_formats

    if form == "table":
        query_formats.print_table(result, out)
        return
    if form == "parquet":
        if sys.stdout.isatty():
            raise SettingsError("--format parquet writes bytes: send them to a file, e.g. > result.parquet")
        sys.stdout.buffer.write(query_formats.as_parquet(result))
        return
    sys.stdout.write(getattr(query_formats, f"as_{form}")(result))
