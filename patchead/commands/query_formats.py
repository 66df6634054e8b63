"""A query's result as a table for a terminal, CSV, JSON, Markdown or Parquet."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import io
import json
import math
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Column, Table

from patchead.markdown import markdown_table
from patchead.printed import add_cells, cell, say

_BORDERS = 3  # characters that a column takes beside its cells, and one at the end


def print_table(result: pa.Table, console: Console) -> None:
    """Print rows below each other; where they are wider than the console, every row as a block of lines.

    Numbers have six digits; the other forms have all of them.
    """
    names, rows = result.column_names, [[_short(value) for value in row.values()] for row in result.to_pylist()]
    widths = [max(cell(text).cell_len for text in column) for column in zip(names, *rows, strict=True)]
    if sum(widths) + _BORDERS * len(widths) + 1 <= console.width or not rows:
        table = Table(*(Column(cell(name), overflow="fold") for name in names))
        for row in rows:
            add_cells(table, row)
        console.print(table)
        return
    for number, row in enumerate(rows, 1):
        say(console, f"-- row {number} of {len(rows)}", style="bold")
        block = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
        for pair in zip(names, row, strict=True):
            add_cells(block, pair)
        console.print(block)


def as_csv(result: pa.Table) -> str:
    """Write a header and one line per row; lists and structs are JSON, null is empty, times are ISO 8601."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(result.column_names)
    writer.writerows([_text(value) for value in row.values()] for row in result.to_pylist())
    return sink.getvalue()


def as_json(result: pa.Table) -> str:
    """Write a list with one object per row; dates and times are ISO 8601, bytes base64, what is no number null."""
    return json.dumps(_plain(result.to_pylist()), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def as_markdown(result: pa.Table) -> str:
    """Write a table of Markdown; numbers stand right."""
    numeric = [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in result.schema]
    first = numeric.index(True) if True in numeric and all(numeric[numeric.index(True) :]) else None
    rows = [[_text(value) for value in row.values()] for row in result.to_pylist()]
    return markdown_table(result.column_names, rows, first) + "\n"


def as_parquet(result: pa.Table) -> bytes:
    """Write one Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(result, sink)
    return sink.getvalue().to_pybytes()


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    return f"{value:.6g}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    plain = _plain(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, (list, dict, bool)) else str(plain)


@singledispatch
def _plain(value: Any) -> Any:
    """What JSON can hold."""
    return value if isinstance(value, (str, int, type(None))) else str(value)


@_plain.register(dict)
def _(value: dict[Any, Any]) -> Any:
    return {str(key): _plain(inner) for key, inner in value.items()}


@_plain.register(list)
@_plain.register(tuple)
def _(value: Sequence[Any]) -> Any:
    return [_plain(inner) for inner in value]


@_plain.register
def _(value: bytes) -> Any:
    return base64.b64encode(value).decode()


@_plain.register(dt.date)
@_plain.register(dt.time)
def _(value: dt.date | dt.time) -> Any:
    return value.isoformat()


@_plain.register
def _(value: float) -> Any:
    return value if math.isfinite(value) else None


@_plain.register
def _(value: pa.MonthDayNano) -> Any:
    months = f"{value.months} months " if value.months else ""
    return months + str(dt.timedelta(days=value.days, microseconds=value.nanoseconds // 1000))
