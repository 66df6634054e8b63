"""Tables that people give as files, CSV or Parquet: their rows, as texts, of the columns that they must have."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from patchead.errors import LakeError, SettingsError
from patchead.storage import Storage, explained

Row = dict[str, str | None]
_PARQUET = b"PAR1"
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "a ZIP archive or an Excel workbook", b"BZh": "bzip2"}
_PACKED |= {b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "Zstandard", b"\xd0\xcf\x11\xe0": "an old Excel workbook"}
_AS_CSV = "Save it as CSV UTF-8, with commas between the columns."
_NAMED = 10


def read_given(uri: str, storage: Storage) -> bytes:
    """Read a file.

    Raises:
        SettingsError: there is none, or it is a folder or may not be read.
        LakeError: the storage does not answer.
    """
    try:
        filesystem, path = storage.filesystem(uri)
    except (ValueError, ImportError) as exc:  # of an address that no library here knows
        raise SettingsError(f"{uri} cannot be read: {exc}. Name a path, or an address of s3:// or https://.") from exc
    with explained("read", uri, LakeError):
        try:
            return filesystem.cat_file(path)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise SettingsError(f"{uri} does not exist. Check the path, or the address and the bucket.") from exc
        except IsADirectoryError as exc:
            raise SettingsError(f"{uri} is a folder. Name one file, CSV or Parquet.") from exc
        except PermissionError:
            with explained("read", uri, SettingsError):
                raise


def given_rows(uri: str, storage: Storage, required: Sequence[str], more: Sequence[str] = ()) -> list[Row]:
    """Read the rows of a table, CSV or Parquet: the ``required`` columns and ``more``, None where there is none.

    Which of the two it is, its first bytes say, else its name.

    Raises:
        SettingsError: it cannot be read as such a table, lacks a required column or has one twice, or has no row; the
            text names the file, the line or column, and the remedy.
        LakeError: the storage does not answer.
    """
    data = read_given(uri, storage)
    is_parquet = data.startswith(_PARQUET) or uri.lower().endswith(".parquet")
    rows = (_of_parquet if is_parquet else _of_csv)(data, uri, required, more)
    if not rows:
        raise SettingsError(f"{uri} has no row.")
    return rows


def shortened(value: str | None, longest: int = 60) -> str:
    """Write a value of a file for a message, in quotes, cut where it is long."""
    return repr(value) if value is None or len(value) <= longest else f"{value[:longest]!r}…"


def _of_csv(data: bytes, uri: str, required: Sequence[str], more: Sequence[str]) -> list[Row]:
    lines = _lines(_text(data, uri), uri)
    header = next(lines, (0, list[str]()))[1]
    _require_columns(header, uri, required, more)
    place = {name: header.index(name) for name in (*required, *more) if name in header}
    rows = []
    for number, cells in lines:
        if any(cells[len(header) :]):
            raise SettingsError(
                f"line {number} of {uri} has {len(cells)} columns, the header {len(header)}. Put quotation marks "
                "around a text that has a comma in it."
            )
        found = {name: cells[at] for name, at in place.items() if at < len(cells)}
        rows.append({name: found.get(name) for name in (*required, *more)})
    return rows


def _lines(text: str, uri: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, each with the line that it begins in."""
    reader, begins = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise SettingsError(
                f"{uri}: the row that begins in line {begins} cannot be read ({exc}): a quotation mark opens a text "
                'and none closes it, or a cell is too long. Close the text with ", write "" for a quotation mark '
                "inside it, or take the mark out."
            ) from exc
        if cells:
            yield begins, cells
        begins = reader.line_num + 1


def _text(data: bytes, uri: str) -> str:
    for begin, what in _PACKED.items():
        if data.startswith(begin):
            raise SettingsError(f"{uri} is {what}, not CSV or Parquet. Unpack it, or save the table as CSV UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise SettingsError(
            f"{uri} is no UTF-8 text ({exc.reason} at byte {exc.start}, line {line}). {_AS_CSV}"
        ) from exc
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SettingsError(f"{uri} has a NUL character in line {line}, so it is no CSV text. {_AS_CSV}")
    return text


def _of_parquet(data: bytes, uri: str, required: Sequence[str], more: Sequence[str]) -> list[Row]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        _require_columns(names, uri, required, more)
        found = file.read(columns=[name for name in (*required, *more) if name in names])
    except (pa.ArrowException, OSError) as exc:  # OSError: pages that are damaged
        raise SettingsError(
            f"{uri} is no Parquet file that can be read: {_line(exc)} Write it again; a CSV file has another name."
        ) from exc
    rows = pa.table({name: _as_texts(found[name], name, uri) for name in found.column_names})
    return [{name: row.get(name) for name in (*required, *more)} for row in rows.to_pylist()]


def _as_texts(column: pa.ChunkedArray, name: str, uri: str) -> pa.ChunkedArray:
    try:
        texts = pc.cast(column, pa.string())
        texts.validate(full=True)
    except pa.ArrowException as exc:
        raise SettingsError(
            f"column {name!r} of {uri} has type {column.type} and cannot be taken as text ({_line(exc)}) Write it as "
            "a column of UTF-8 texts."
        ) from exc
    if pc.any(pc.match_substring(texts, "\0")).as_py():
        raise SettingsError(f"column {name!r} of {uri} has a text with a NUL character. Write it without.")
    return texts


def _require_columns(names: Sequence[str], uri: str, required: Sequence[str], more: Sequence[str]) -> None:
    """Refuse a table that lacks a column, or has one twice."""
    if missing := [name for name in required if name not in names]:
        maybe = f", and maybe {', '.join(more)}" if more else ""
        there = ", ".join(map(shortened, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")
        raise SettingsError(
            f"{uri} has no column {missing[0]!r}; it has {there or 'none'}. The columns are "
            f"{', '.join(required)}{maybe}; in a CSV file with commas between them."
        )
    if twice := [name for name in (*required, *more) if list(names).count(name) > 1]:
        raise SettingsError(f"{uri} has the column {twice[0]!r} more than once. Leave one of them.")


def _line(exc: Exception) -> str:
    """The first line of what a library says, ended by a full stop."""
    return f"{(str(exc).splitlines() or [type(exc).__name__])[0][:200].rstrip('.')}."
