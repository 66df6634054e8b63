"""Which views a query needs: each one that is made costs a look at its tables, and requests where they are on S3."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OF_THE_CATALOG = re.compile(r"\b(show|describe|summarize|pragma|information_schema|(duckdb|sqlite|pg)_\w+)\b")
"""Words of statements that ask what there is."""


def asked_views(sql: str, texts: Mapping[str, str]) -> set[str]:
    """Return the names of the views that SQL may read: those whose name is a word of it, and what these read in turn.

    A statement that asks what there is, or that has no such name in it, gets all of them.

    Args:
        sql: one or more statements.
        texts: the SELECT of each view, or any text that has the names of the views that it reads.
    """
    lower = sql.lower()
    found: set[str] = set()
    new = _words(lower) & texts.keys()
    if not new or _OF_THE_CATALOG.search(lower):
        return set(texts)
    while new:
        found |= new
        new = set().union(*(_words(texts[name]) for name in new)) & texts.keys() - found
    return found


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
