"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patchead.printed import plain


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], names: int | None = None) -> str:
    """Write a table of text cells as Markdown, without a newline at its end.

    Args:
        header: one name per column.
        rows: as many cells each; ``|``, newlines and control characters in them are escaped.
        names: how many of the first columns are aligned left, the others right; default: all left.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    left = len(header) if names is None else names
    lines = [_line(header), _line("---" if at < left else "---:" for at in range(len(header)))]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row must have {len(header)} cells like its header; got {len(row)}: {list(row)}")
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_cell(plain(cell, keep=chr(10))) for cell in cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")
