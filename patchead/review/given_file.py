"""Files that people give: their bytes, and the rows of a CSV table with the columns that it must have."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from patchead.errors import LakeError, SettingsError
from patchead.storage import Storage, explained


def read_given(uri: str, storage: Storage) -> bytes:
    """Read a file.

    Raises:
        LakeError: it cannot be read.
    """
    with explained("read", uri, LakeError):
        filesystem, path = storage.filesystem(uri)
        return filesystem.cat_file(path)


def csv_rows(data: bytes, uri: str, required: Sequence[str], more: Sequence[str] = ()) -> list[dict[str, str | None]]:
    """Take the rows of a CSV table with a header: the ``required`` columns and ``more``, None where there is none.

    Raises:
        SettingsError: it is no UTF-8 text, or lacks a required column.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise SettingsError(
            f"{uri} is no UTF-8 text ({exc.reason} at byte {exc.start}). Save it as CSV UTF-8."
        ) from exc
    reader = csv.DictReader(io.StringIO(text, newline=""))
    require_columns(reader.fieldnames or (), uri, required, more)
    return [{name: row.get(name) for name in (*required, *more)} for row in reader]


def require_columns(names: Sequence[str], uri: str, required: Sequence[str], more: Sequence[str] = ()) -> None:
    """Refuse a table that lacks a column.

    Raises:
        SettingsError: it lacks one of ``required``.
    """
    if missing := [name for name in required if name not in names]:
        maybe = f", and maybe {', '.join(more)}" if more else ""
        raise SettingsError(
            f"{uri} has no column {missing[0]!r}; it has {', '.join(map(repr, names)) or 'none'}. The columns are "
            f"{', '.join(required)}{maybe}; in a CSV file with commas between them."
        )
