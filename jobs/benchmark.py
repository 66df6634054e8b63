"""Speed and memory, as ratios measured side by side in one run: `make bench`, or `jobs/benchmark.py NAME --full`."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from benchmarks import embedding, fidelity, growth, memory, scoring, stage
from benchmarks.records import Record, machine, markdown, save, show
from rich.console import Console

BOTH = ("fp32", "int8")


class Name(str, Enum):
    """The questions that have a benchmark."""

    scoring = "scoring"
    scoring_large = "scoring-large"
    memory = "memory"
    growth = "growth"
    overhead = "overhead"
    actors = "actors"
    embed = "embed"
    fidelity = "fidelity"


QUICK: dict[Name, Callable[[], list[Record]]] = {
    Name.scoring: lambda: scoring.scoring(32, 512, 384, precisions=BOTH, repeats=5),
    Name.scoring_large: lambda: scoring.scoring(60, 256, 768, precisions=BOTH, repeats=5, name="scoring-large"),
    Name.memory: lambda: memory.memory(memory.QUICK),
    Name.growth: lambda: growth.growth((250, 500, 1000), precision="int8", repeats=3),
    Name.overhead: lambda: stage.overhead(100, 256, 384, repeats={"fp32": 3, "int8": 3}),
    Name.actors: lambda: stage.actors(100, 256, 384, precision="fp32", repeats=3),
    Name.embed: lambda: embedding.embedding(192, repeats=1),
    Name.fidelity: lambda: fidelity.fidelity(72, 8, (20, 40)),
}
FULL: dict[Name, Callable[[], list[Record]]] = {
    Name.scoring: lambda: scoring.scoring(32, 1024, 384, precisions=("fp32", "bf16", "int8"), repeats=9),
    Name.scoring_large: lambda: scoring.scoring(200, 256, 768, precisions=BOTH, repeats=5, name="scoring-large"),
    Name.memory: lambda: memory.memory(memory.FULL),
    Name.growth: lambda: growth.growth((500, 1000, 2000), precision="int8", repeats=5, plot=Path("docs/growth.png")),
    Name.overhead: lambda: stage.overhead(200, 1024, 384, repeats={"fp32": 3, "int8": 7}),
    Name.actors: lambda: stage.actors(200, 1024, 768, precision="fp32", repeats=2),
    Name.embed: lambda: embedding.embedding(400, repeats=1),
    Name.fidelity: lambda: fidelity.fidelity(270, 30, (50, 100, 200)),
}


def main(
    names: Annotated[list[Name] | None, typer.Argument(help="Which benchmarks to run; default: all.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The sizes of the README instead of quick ones.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all CPUs.")] = None,
    output: Annotated[Path, typer.Option(help="Where the records go, beside those of other benchmarks.")] = Path(
        "benchmarks.json"
    ),
    table: Annotated[
        bool, typer.Option("--markdown", help="Measure nothing: print OUTPUT as a Markdown table.")
    ] = False,
) -> None:
    """Measure, print tables, and write the records as JSON."""
    if table:
        print(markdown(output))
        return
    torch.set_num_threads(threads or os.cpu_count() or 1)
    console = Console(width=None if os.isatty(1) else 150)
    console.print(f"{machine()}, {torch.get_num_threads()} threads", highlight=False)
    for name in names or list(Name):
        records = (FULL if full else QUICK)[name]()
        show(records, console)
        save(records, output)
    console.print(f"records: {output}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
