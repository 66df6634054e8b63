"""The `patchead` command: score, query, settings.

Exit codes of `score`: 0 every image scored; 2 bad settings; 3 published, but some images failed; 4 not published, too
many images failed; 1 anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from patchead.errors import PatcheadError
from patchead.settings import iter_fields, load_config

PUBLISHED_WITH_FAILURES = 3

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
# A file or a pipe has no width: lines are not cut for it.
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; see `patchead settings`."),
]


@app.command()
def score(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with the settings.")] = None,
    archive: Annotated[str | None, typer.Option(help="Short for --set archive.uri=…")] = None,
    lake: Annotated[str | None, typer.Option(help="Short for --set lake.uri=…")] = None,
    night: Annotated[str | None, typer.Option(help="Score this night only: YYYY-MM-DD.")] = None,
    product: Annotated[list[str] | None, typer.Option(help="Score this product only; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(help="Score the first LIMIT images only.")] = None,
    run_id: Annotated[str | None, typer.Option(help="Name of the run; publishing a name twice is a no-op.")] = None,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing, start nothing.")] = False,
) -> None:
    """Score a night of the archive and publish the tables scores, regions and runs to the lake.

    Exit codes: 0 every image scored, 2 bad settings, 3 published but some images failed, 4 not published because too
    many failed (run.max_failed_fraction), 1 anything else.
    """
    short = {
        "archive.uri": archive,
        "lake.uri": lake,
        "archive.night": night,
        "archive.products": product or None,
        "archive.limit": limit,
        "run.run_id": run_id,
    }
    settings = load_config(config, overrides or [], {key: value for key, value in short.items() if value is not None})
    if dry_run:
        from patchead.pipeline.dry_run import print_plan

        print_plan(settings, out)
        return
    from patchead.pipeline.report import print_record
    from patchead.pipeline.run import run_night

    record = run_night(settings, out)
    print_record(record, out)
    if record.failed:
        raise typer.Exit(PUBLISHED_WITH_FAILURES)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A query over the tables scores, regions and runs.")],
    lake: Annotated[str, typer.Option(help="Folder or URL of the lake.")],
    overrides: SetOption = None,
) -> None:
    """Run SQL over the published tables with DuckDB and print the result."""
    from patchead.lake.query import query as run_query
    from patchead.pipeline.translate import storage

    settings = load_config(None, overrides or [], {"lake.uri": lake, "archive.uri": "unused://"})
    found = run_query(lake, storage(settings), sql)
    table = Table(*(Column(name, overflow="fold") for name in found.column_names))
    for row in zip(*(column.to_pylist() for column in found.columns), strict=True):
        table.add_row(*("" if value is None else str(value) for value in row))
    out.print(table)


@app.command()
def settings() -> None:
    """Print every setting with its default and meaning."""
    table = Table(Column("setting", no_wrap=True), "default", "meaning")
    for key, field in iter_fields():
        table.add_row(key, "required" if field.is_required() else str(field.get_default()), field.description)
    out.print(table)


def run_command(command: Callable[[], Any]) -> None:
    """Run a command; an error this package raises on purpose ends it with one message and its exit code."""
    try:
        command()
    except PatcheadError as exc:
        err.print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(exc.exit_code)


def main() -> None:
    """Entry point of the console script."""
    run_command(app)
