"""`patchead accept` and `patchead accepted`: runs that later nights are compared with."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Column, Table

from patchead.commands.machine import JsonOption, print_json
from patchead.commands.options import OneLakeOption, ProductOption, SetOption, out, storage_of
from patchead.printed import add_cells, say, tell


def accept(
    *,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a published run.")],
    lake: OneLakeOption,
    product: ProductOption = None,
    name: Annotated[str | None, typer.Option(help="For scoring.accepted; default: the run's id.")] = None,
    night: Annotated[str | None, typer.Option(help="YYYY-MM-DD, of a run that covers several nights.")] = None,
    without_flagged: Annotated[
        bool, typer.Option("--without-flagged", help="Leave flagged images out, unless people called them good.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of what has the name.")] = False,
    overrides: SetOption = None,
) -> None:
    """Accept a published run: with scoring.verdict=reference later nights are compared with its scores.

    Images that people called defects (`patchead feedback`) are left out; all others count, flagged ones too.
    """
    from patchead.archive.keys import parse_night
    from patchead.errors import SettingsError, bad_value
    from patchead.review.accept import AcceptRequest
    from patchead.review.accept import accept as accept_run

    date = None if night is None else parse_night(night)
    if night is not None and date is None:
        raise SettingsError(bad_value("--night", night, "a date, YYYY-MM-DD"))
    request = AcceptRequest(
        run_id=run,
        name=name,
        products=product or (),
        night=date,
        without_flagged=without_flagged,
        replace=replace,
    )
    outcomes = accept_run(lake, storage_of(lake, overrides), request)
    table = Table(
        Column("group", overflow="fold"), _right("scores"), _right("left out"), _right("flagged among them"), ""
    )
    for outcome in outcomes:
        values = outcome.accepted.values
        state = "accepted" if outcome.is_new else "was accepted before"
        add_cells(table, (values["group_id"], values["n"], outcome.left_out, outcome.flagged, state))
    out.print(table)
    say(out, f"name: {outcomes[0].accepted.name}")
    if any(outcome.flagged for outcome in outcomes):
        tell(
            out,
            "Flagged images are among the scores: where they are defects, later nights are flagged less than they "
            "should be. Say so with `patchead feedback`, or leave them out with --without-flagged, and --replace.",
        )


def accepted(lake: OneLakeOption, as_json: JsonOption = False, overrides: SetOption = None) -> None:
    """List the accepted runs, the newest first."""
    from patchead.lake.accepted import list_accepted

    rows = list_accepted(lake, storage_of(lake, overrides))
    if as_json:
        print_json([row.values for row in rows])
        return
    if not rows:
        say(out, f"Nothing is accepted in {lake}: `patchead accept RUN` does.")
        return
    table = Table(
        *(Column(name, overflow="fold") for name in ("name", "group", "run", "accepted")),
        _right("scores"),
        _right("median"),
        _right("scale"),
    )
    for row in rows:
        values = row.values
        when = f"{values['accepted_at']:%Y-%m-%d %H:%M}"
        numbers = (values["n"], f"{values['centre']:.4f}", f"{values['scale']:.4f}")
        add_cells(table, (row.name, values["group_id"], row.run_id, when, *numbers))
    out.print(table)


def _right(name: str) -> Column:
    return Column(name, justify="right")
