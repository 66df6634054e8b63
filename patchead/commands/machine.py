"""What programs read: one JSON value on the standard output, and what a person reads on the way kept apart from it."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from patchead.commands.options import out
from patchead.redaction import redacted_values

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON value; what is told on the way goes to stderr.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only, on stderr.")]


def told_on(*, quiet: bool, as_json: bool) -> Console:
    """Choose where a person is told how it goes: nowhere, but of warnings; stderr; or the standard output."""
    if quiet:
        return Console(quiet=True)
    return Console(stderr=True) if as_json else out


def print_json(value: Any) -> None:
    """Print plain values, dates and times as JSON: no secrets, and ASCII alone, so that no name can do anything."""
    plain = json.loads(json.dumps(value, default=_text))
    sys.stdout.write(json.dumps(redacted_values(plain), indent=1) + "\n")


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else str(value)
