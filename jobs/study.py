"""What the method is worth, measured on this machine: `make eval`, or `jobs/study.py --only elpv`; prints tables."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
import typer
from benchmarks.records import machine
from rich.console import Console
from studies import aligned, defects, elpv, fewshot, precision
from studies.findings import Finding, Sheet, load, progress, save


class Name(str, Enum):
    """The studies."""

    elpv = "elpv"
    fewshot = "fewshot"
    planted = "planted"
    aligned = "aligned"
    precision = "precision"


#: Each has `run(say) -> findings` and `sheets(findings) -> tables`.
STUDIES: dict[Name, ModuleType] = {
    Name.elpv: elpv,
    Name.fewshot: fewshot,
    Name.planted: defects,
    Name.aligned: aligned,
    Name.precision: precision,
}


def main(
    only: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(name.value for name in Name)}.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all CPUs.")] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go, beside those of other studies.")] = Path(
        "evaluation.json"
    ),
    table: Annotated[
        bool, typer.Option("--markdown", help="Measure nothing: print OUTPUT as the README's section.")
    ] = False,
) -> None:
    """Run the studies, print their tables, and keep every figure as JSON."""
    if table:
        if not output.exists():
            raise typer.BadParameter(f"--output must be a file that an earlier run wrote; {output} does not exist.")
        print(markdown(load(output)))
        return
    names = chosen(only)
    torch.set_num_threads(threads or os.cpu_count() or 1)
    console = Console(width=None if os.isatty(1) else 170)
    console.print(f"{machine()}, {torch.get_num_threads()} threads", highlight=False)
    say = progress(console)
    for name in names:
        findings = STUDIES[name].run(say)
        save(findings, output)
        for sheet in sheets(name, findings):
            sheet.show(console)
    say(f"done; every figure is in {output}")


def chosen(only: str) -> list[Name]:
    """The studies named in ``--only``; all of them when it is empty.

    Raises:
        typer.BadParameter: an unknown name.
    """
    known = [name.value for name in Name]
    names = [part.strip() for part in only.split(",") if part.strip()] or known
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"--only must name some of {', '.join(known)}; got {unknown[0]!r}.")
    return [Name(name) for name in names]


def sheets(name: Name, findings: list[Finding]) -> list[Sheet]:
    """The tables of one study."""
    return list(STUDIES[name].sheets(findings))


def markdown(findings: list[Finding]) -> str:
    """The README's section: the tables of every study that has run."""
    parts = [
        sheet.markdown()
        for name in Name
        if (found := [finding for finding in findings if finding.study == name.value])
        for sheet in sheets(name, found)
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    typer.run(main)
