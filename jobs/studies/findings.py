"""What a study finds: figures with their range, kept as JSON; and tables, alike on a terminal and in Markdown."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measured_page import Origin
from rich.console import Console
from rich.table import Column, Table

from patchead.atomic_files import write_atomically
from patchead.markdown import markdown_table

#: What was varied, by name: {"product": "poly", "px": 224, …}.
Case = dict[str, str | int | float]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Finding:
    """One metric of one case: a value per split, draw or group of images, in their order."""

    study: str
    case: Case
    metric: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def with_range(self) -> str:
        """``0.933 (0.88-0.99)``: the mean, the lowest and the highest; the value alone where there is one."""
        if len(self.values) == 1:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({min(self.values):.2f}-{max(self.values):.2f})"

    @property
    def with_deviation(self) -> str:
        """``0.933 ± 0.021``: the mean and the sample's standard deviation; the value alone where there is one."""
        if len(self.values) == 1:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {statistics.stdev(self.values):.3f}"


@dataclass(frozen=True)
class Sheet:
    """One table: title, what a reader must know to read it, header, rows of text; the first columns are names."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def show(self, console: Console) -> None:
        """Print it on a terminal."""
        columns = [Column(name, justify="right" if index else "left") for index, name in enumerate(self.header)]
        table = Table(*columns, title=self.title, caption=self.caption)
        table.title_justify = table.caption_justify = "left"
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """As a part of a page, below its title."""
        lines = [*filter(None, [self.caption]), ""]
        if self.rows:
            lines += [markdown_table(self.header, self.rows), ""]
        return "\n".join(lines)


def find(findings: Sequence[Finding], metric: str, **case: str | int | float) -> Finding | None:
    """The one finding of this metric whose case has these entries; None where the case was not run.

    Raises:
        ValueError: several fit, so the question is not precise enough.
    """
    found = [f for f in findings if f.metric == metric and case.items() <= f.case.items()]
    if len(found) > 1:
        raise ValueError(f"{len(found)} findings fit {metric} of {case}")
    return found[0] if found else None


def mean_and_worst(finding: Finding | None) -> str:
    """``1.2% / 3.4%``: of shares, the mean and the highest; empty where the case was not run."""
    return f"{finding.mean:.1%} / {max(finding.values):.1%}" if finding else ""


def arithmetics(findings: Sequence[Finding]) -> str:
    """Name the arithmetic of all the findings, each once, for the caption of their table."""
    return ", ".join(dict.fromkeys(str(finding.case["arithmetic"]) for finding in findings))


def save(findings: Sequence[Finding], output: Path, origin: Origin) -> None:
    """Replace the findings of these studies and this machine in ``output``; all others stay."""
    studies = {finding.study for finding in findings}
    kept = [row for row in _rows(output) if row["machine"] != origin.machine or row["study"] not in studies]
    rows = kept + [asdict(finding) | asdict(origin) for finding in findings]
    write_atomically(output, json.dumps(rows, indent=1) + "\n")


def load(output: Path, machine: str) -> tuple[list[Finding], list[Origin]]:
    """The findings of a machine in a file that `save` wrote, and where each comes from."""
    rows = [row for row in _rows(output) if row["machine"] == machine]
    findings = [Finding(row["study"], row["case"], row["metric"], tuple(row["values"])) for row in rows]
    return findings, [Origin(row["machine"], row["command"], row["date"]) for row in rows]


def _rows(output: Path) -> list[dict[str, Any]]:
    """The rows of the file; none where there is no file, or one of a version that did not tell the machine."""
    rows = json.loads(output.read_text(encoding="utf-8")) if output.exists() else []
    return [row for row in rows if "machine" in row]


def progress(console: Console) -> Say:
    """A function that prints a line with the minutes and seconds since now."""
    start = time.monotonic()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - start), 60)
        console.print(f"[{minutes:2d}:{seconds:02d}] {text}", highlight=False, markup=False)

    return say
