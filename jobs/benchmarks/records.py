"""What a benchmark finds: records for `benchmarks.json`, a table for the terminal, and how the times are taken."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from measured_page import Origin
from rich.console import Console
from rich.table import Column, Table

from patchead.atomic_files import write_atomically
from patchead.markdown import markdown_table
from patchead.scoring.precision_probe import CLEARLY_FASTER, probe, processor

NOT_HERE = "not this processor"
_HOPELESS = 0.2  # times the speed of fp32 below which nothing is measured: a benchmark would take hours


@dataclass(frozen=True, kw_only=True)
class Record:
    """One figure; ``unit`` is empty for a plain number.

    ``target`` is a bound such as ``>= 3.5`` or None; ``met`` says whether the value keeps it. ``value`` is None where
    it was not measured. ``note`` says why, or why the target is of other processors: it is then neither met nor missed.
    """

    benchmark: str
    case: str
    precision: str
    metric: str
    value: float | None
    unit: str = ""
    target: str | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.target is None or self.value is None or self.note:
            return None
        relation, bound = self.target.split()
        return self.value >= float(bound) if relation == ">=" else self.value <= float(bound)

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table, in the order of `HEADER`."""
        value = "" if self.value is None else f"{self.value:.4g} {self.unit}".strip()
        met = self.note or {None: "", True: "yes", False: "**no**"}[self.met]
        return (self.benchmark, self.case, self.precision, self.metric, value, self.target or "", met)


HEADER = ("benchmark", "case", "precision", "metric", "value", "target", "met")


def note_for(precision: str, presumed: float = CLEARLY_FASTER) -> str:
    """Say why a target for fast ``precision`` is none for this processor; empty where the probe finds it fast.

    Args:
        precision: an arithmetic.
        presumed: times the speed of fp32 that the target takes for granted.
    """
    speed = probe(candidates=(precision,))[precision]
    if precision == "fp32" or speed >= presumed:
        return ""
    return f"{NOT_HERE}: {speed:.2g} times fp32"


def measurable(precisions: Iterable[str]) -> list[str]:
    """Leave out the precisions that are so slow on this processor that measuring them would take hours."""
    return [name for name in precisions if probe(candidates=(name,))[name] >= _HOPELESS]


def not_measured(benchmark: str, case: str, precisions: Iterable[str], metric: str) -> list[Record]:
    """A record without a value for each precision that `measurable` leaves out."""
    asked = list(precisions)
    left_out = sorted(set(asked) - set(measurable(asked)))
    return [
        Record(benchmark=benchmark, case=case, precision=name, metric=metric, value=None, note=note_for(name))
        for name in left_out
    ]


def interleaved(
    cases: dict[str, Callable[[], object]], repeats: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each case, the cases taking turns so that a slow minute hits all of them; one turn more warms up."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + warm_up):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if turn or not warm_up:
                taken[name].append(time.perf_counter() - start)
    return taken


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of two cases, turn by turn."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def show(records: Sequence[Record], console: Console) -> None:
    """Print one table per benchmark, with the processor in its title."""
    for name in dict.fromkeys(record.benchmark for record in records):
        columns = (Column(title, justify="right" if title == "value" else "left") for title in HEADER[1:])
        table = Table(*columns, title=f"{name} · {processor()}")
        table.title_justify = "left"
        for record in (record for record in records if record.benchmark == name):
            table.add_row(*(cell.strip("*") for cell in record.cells[1:]))
        console.print(table)


def save(records: Sequence[Record], output: Path, origin: Origin) -> None:
    """Replace the records of these benchmarks and this machine in ``output``; all others stay."""
    names = {record.benchmark for record in records}
    kept = [row for row in _rows(output) if row["machine"] != origin.machine or row["benchmark"] not in names]
    rows = kept + [asdict(record) | {"met": record.met} | asdict(origin) for record in records]
    write_atomically(output, json.dumps(rows, indent=2) + "\n")


def load(output: Path, machine: str) -> tuple[list[Record], list[Origin]]:
    """The records of a machine in a file that `save` wrote, and where each comes from."""
    rows = [row for row in _rows(output) if row["machine"] == machine]
    records = [Record(**{field.name: row[field.name] for field in fields(Record)}) for row in rows]
    return records, [Origin(row["machine"], row["command"], row["date"]) for row in rows]


def markdown(records: Sequence[Record]) -> str:
    """One Markdown table."""
    return markdown_table(HEADER, [record.cells for record in records])


def _rows(output: Path) -> list[dict[str, Any]]:
    """The rows of the file; none where there is no file, or one of a version that did not tell the machine."""
    rows = json.loads(output.read_text(encoding="utf-8")) if output.exists() else []
    return [row for row in rows if "machine" in row]
