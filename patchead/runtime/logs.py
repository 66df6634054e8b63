"""Logs for machines: one JSON object a line, by the standard `logging`, on stderr. Ray's own loggers are left alone."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from patchead.printed import plain
from patchead.redaction import redacted

FIELDS = ("run_id", "night", "stage", "group", "unit", "product")
"""What a record may be about; each that is known is a key of its line."""
LOGGER = logging.getLogger("patchead")
LOGGER.addHandler(logging.NullHandler())  # where nobody asks for records, none is printed
_about: dict[str, str] = {}


class JsonLines(logging.Formatter):
    """Write a record as one line of JSON: time, level, message, and what it is about; no secrets, no control marks."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        when = dt.datetime.fromtimestamp(record.created, dt.timezone.utc).isoformat(timespec="milliseconds")
        found = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        about = {name: getattr(record, name, None) or _about.get(name) for name in FIELDS}
        found |= {name: redacted(plain(value)) for name, value in about.items() if value}
        return json.dumps(found | {"message": redacted(plain(record.getMessage(), keep="\n"))}, ensure_ascii=False)


def about(**fields: str | None) -> None:
    """Say what the records from here on are about, by names of `FIELDS`; None takes one back."""
    for name, value in fields.items():
        if value is None:
            _about.pop(name, None)
        else:
            _about[name] = value


@contextmanager
def json_logs(level: str, run_id: str) -> Iterator[None]:
    """Write the records of this package at ``level`` and above to stderr while the block runs; ``off`` writes none."""
    if level == "off":
        yield
        return
    handler, before = logging.StreamHandler(sys.stderr), (LOGGER.level, LOGGER.propagate)
    handler.setFormatter(JsonLines())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False  # what Ray, or a notebook, does with the root logger is theirs
    about(run_id=run_id)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]
        _about.clear()
