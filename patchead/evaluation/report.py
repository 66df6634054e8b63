"""The table of an evaluation, in the terminal and as Markdown: the same cells."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from patchead.evaluation.records import METRICS, Row, Setup
from patchead.evaluation.summary import MEAN, Figure, Line, notes, summarise
from patchead.markdown import markdown_table
from patchead.printed import add_cells, say, tell

_NAMES = {"auroc": "AUROC", "ap": "AP", "f1_max": "F1-max", "pro": "PRO", "f1": "F1"}
_NAMES |= {"defective_flagged": "defective flagged", "good_flagged": "good flagged"}
_FIGURES = tuple(f"{of} {_NAMES[name]}" for of, _, name in (metric.partition("_") for metric in METRICS))
HEADER = ("variant", "class", "images", "anomalous", *_FIGURES, "seconds")
UNDEFINED = "-"
_WHOLE = 140  # columns that the whole table takes
_NAMES_FIRST = 2  # columns: variant and class


def print_rows(rows: Sequence[Row], setup: Setup, console: Console) -> None:
    """Print the table, what it leaves out, and how to read it; where there is no room, every row as lines."""
    lines = summarise(rows)
    if console.width < _WHOLE:
        for line in lines:
            say(console, " ".join(_cells(line)[:_NAMES_FIRST]), style="bold")
            block = Table.grid(Column(min_width=26), Column(justify="right"), padding=(0, 2))
            for pair in zip(HEADER[_NAMES_FIRST:], _cells(line)[_NAMES_FIRST:], strict=True):
                add_cells(block, pair)
            console.print(block)
    else:
        columns = (Column(name, justify="left" if at < _NAMES_FIRST else "right") for at, name in enumerate(HEADER))
        table = Table(*columns)
        for line in lines:
            add_cells(table, _cells(line), style="bold" if line.class_name == MEAN else None)
        console.print(table)
    for text in [*notes(rows), reading(rows, setup)]:
        tell(console, text)


def markdown(rows: Sequence[Row], setup: Setup) -> str:
    """Write the same table as Markdown, with its notes."""
    table = markdown_table(HEADER, [_cells(line) for line in summarise(rows)], names=_NAMES_FIRST)
    below = "\n".join(f"- {note}" for note in notes(rows))
    return "\n\n".join(part for part in (f"# {setup.dataset}", table, below, reading(rows, setup)) if part) + "\n"


def reading(rows: Sequence[Row], setup: Setup) -> str:
    """Tell how the figures were made, in one paragraph."""
    drawn = sorted({row.seed for row in rows if row.seed is not None})
    seeds = f" ± is the standard deviation over seeds {', '.join(map(str, drawn))}." if len(drawn) > 1 else ""
    return (
        f"Metrics in percent; {UNDEFINED}: undefined without both kinds of image or pixel.{seeds} "
        f"Maps and masks at {setup.map_side} px; PRO up to a false-positive rate of 0.3. {arithmetic(rows)}"
    )


def arithmetic(rows: Sequence[Row]) -> str:
    """Say in what the embeddings and the scores were computed: of all variants, or of each where they differ."""
    used = {}
    for row in rows:
        settings = json.loads(row.settings)
        used[row.variant] = f"{settings['encoder.dtype']} encoder, {settings['scoring.precision']} scores"
    if len(set(used.values())) == 1:
        return f"Arithmetic: {next(iter(used.values()))}."
    return "Arithmetic: " + "; ".join(f"{name}: {how}" for name, how in used.items()) + "."


def _cells(line: Line) -> tuple[str, ...]:
    figures = (_text(line.figures[metric]) for metric in METRICS)
    return (line.variant, line.class_name, str(line.images), str(line.anomalous), *figures, f"{line.seconds:.1f}")


def _text(figure: Figure | None) -> str:
    if figure is None:
        return UNDEFINED
    return f"{100 * figure.mean:.2f}" + ("" if figure.std is None else f" ± {100 * figure.std:.2f}")
