"""Text for a terminal or a log: names from archives are shown as what they are, and can do nothing.

A name may hold escape sequences, characters that turn the direction of writing, or what Rich takes for markup. Whatever
this package prints goes through here; a test sees to it.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from patchead.redaction import redacted

_JOINERS = "\u200c\u200d"  # without them, words of Persian and of Indian scripts are misspelt
_REFUSED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def plain(text: object, keep: str = "") -> str:
    r"""Write every character that steers a terminal as its escape, e.g. ``\x1b``.

    Controls, marks of direction, surrogates and what Unicode does not assign.

    Args:
        text: anything; its ``str`` is taken.
        keep: control characters to leave, e.g. a newline between lines of our own.
    """
    whole = str(text)
    if whole.isascii() and whole.isprintable():
        return whole
    return "".join(_escaped(c) if unicodedata.category(c) in _REFUSED and c not in keep else c for c in whole)


def cell(value: object) -> Text:
    """Make a table's cell, or a part of a line, of a value: no markup, no control characters, no secrets."""
    return Text("" if value is None else redacted(plain(value)))


def say(console: Console, text: str, style: str = "") -> None:
    """Print lines as they are: not wrapped, no markup, no colours of their own, no control characters, no secrets.

    A quiet console prints nothing; warnings go to stderr then.
    """
    if console.quiet and text.startswith("warning:"):
        console = Console(stderr=True)
    console.print(Text(redacted(plain(text, keep="\n")), style=style), soft_wrap=True)


def tell(console: Console, text: str, style: str = "") -> None:
    """Print sentences as `say` does, in a terminal with lines that end between two words."""
    if console.is_terminal:
        lines = (_wrapped(line, console.width) for line in redacted(text).split("\n"))
        text = "\n".join(lines)
    say(console, text, style)


def _wrapped(line: str, width: int) -> str:
    """Keep the column that a line's text begins in: ``"lake     ./lake: …"``."""
    indent = " " * (9 if len(line) > 9 and line[8] == " " and line[9] != " " else 2)
    whole = textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return "\n".join(whole)


def add_cells(table: Table, values: Iterable[object], **options: Any) -> None:
    """Add a row of values to a table, each as `cell` makes it."""
    table.add_row(*map(cell, values), **options)


def _escaped(character: str) -> str:
    return character if character in _JOINERS else character.encode("unicode_escape", "backslashreplace").decode()
