"""CSV files with a header, read with errors that name the file and the line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchead.errors import ArchiveError, nearest_name
from patchead.evaluation.datasets.base import existing


def rows(path: Path, columns: Sequence[str], what: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a CSV as ``("<file>, line 2", {column: value})``; names lower-case, values stripped or "".

    Raises:
        ArchiveError: no such file (``what`` says what was looked for), not UTF-8, one of ``columns`` is absent, or a
            row is too long.
    """
    existing(path, what)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            if lacking := next((column for column in columns if column not in names), None):
                near = nearest_name(lacking, names)
                raise ArchiveError(f"{path} has no column {lacking!r}; it has {', '.join(names) or 'none'}.{near}")
            reader.fieldnames = names
            for row in reader:
                if None in row:
                    raise ArchiveError(f"{path}, line {reader.line_num} has more values than the header has columns.")
                values = {name: (row[name] or "").strip() for name in names}
                yield f"{path}, line {reader.line_num}", values
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArchiveError(f"{path} is no CSV in UTF-8: {error}") from error
