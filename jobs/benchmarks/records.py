"""What a benchmark finds: records for `benchmarks.json`, a table for the terminal, and how the times are taken."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from patchead.files import write_atomically
from patchead.markdown import markdown_table


@dataclass(frozen=True, kw_only=True)
class Record:
    """One figure; ``unit`` is empty for a plain number.

    ``target`` is a bound such as ``>= 3.5`` or None; ``met`` says whether the value keeps it.
    """

    benchmark: str
    case: str
    precision: str
    metric: str
    value: float
    unit: str = ""
    target: str | None = None

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        relation, bound = self.target.split()
        return self.value >= float(bound) if relation == ">=" else self.value <= float(bound)

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"met": self.met}


def interleaved(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each case, the cases taking turns so that a slow minute hits all of them; one turn warms up."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return taken


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of two cases, turn by turn."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def show(records: Sequence[Record], console: Console) -> None:
    """One table per benchmark."""
    for name in dict.fromkeys(record.benchmark for record in records):
        table = Table("case", "precision", "metric", Column("value", justify="right"), "target", "met", title=name)
        table.title_justify = "left"
        for r in (record for record in records if record.benchmark == name):
            met = {None: "", True: "yes", False: "no"}[r.met]
            table.add_row(r.case, r.precision, r.metric, f"{r.value:.4g} {r.unit}".strip(), r.target or "", met)
        console.print(table)


def markdown(output: Path) -> str:
    """The saved records as one Markdown table, for the README."""
    rows = []
    for row in json.loads(output.read_text()):
        met = {None: "", True: "yes", False: "**no**"}[row["met"]]
        value = f"{row['value']:.4g} {row['unit']}".strip()
        rows.append((row["benchmark"], row["case"], row["precision"], row["metric"], value, row["target"] or "", met))
    return markdown_table(("benchmark", "case", "precision", "metric", "value", "target", "met"), rows)


def save(records: Sequence[Record], output: Path) -> None:
    """Replace the records of these benchmarks in ``output``; those of others stay."""
    kept = json.loads(output.read_text()) if output.exists() else []
    names = {record.benchmark for record in records}
    rows = [row for row in kept if row["benchmark"] not in names] + [record.as_json() for record in records]
    write_atomically(output, json.dumps(rows, indent=2) + "\n")


def machine() -> str:
    """The processor, its logical CPUs and the operating system, for the heading of a table."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}"
