"""Speed and memory, as ratios measured side by side in one run: `make bench`, or `jobs/benchmark.py NAME --full`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import torch
import typer
from benchmarks.records import Record, load, markdown, save, show
from measured_page import Origin, machine, with_origins, write_page
from rich.console import Console

from patchead.scoring.precision_probe import processor

DOCS = Path(__file__).parent.parent / "docs"
BOTH = ("fp32", "int8")
MINUTES = 30
"""Of every benchmark in quick sizes on two cores: what is told in Makefile and CONTRIBUTING.md, and a target."""
INTRODUCTION = f"""
# Performance

<!-- Written by `jobs/benchmark.py --write docs/performance.md`: the tables that it made on this machine, no other. -->

A section for each machine. `make bench` prints these tables in quick sizes; aim: {MINUTES} minutes on two cores
(`whole-run`), `jobs/benchmark.py --full` in the sizes of the targets. Cores are shared with other machines, so every
ratio is the median of ratios taken turn by turn in one run; a second run moves them by 10 to 15 %. There are three
turns or more, in full sizes two of `actors` and `night` and one of `embed`, in quick ones one of `embed`, `night`,
`one-pool` and `first-page`. The `cdist` loop is the textbook one: per image, all references at once.
FLOP/s are counted for the full N² work, of which the symmetric tiles do half. Targets are the project's own; one of
int8 that says *not this processor* presumes AMX, with which int8 is at least 3.4 times as fast as fp32; the figure
behind it is what the probe of `scoring.precision: auto` finds there. `auto` takes int8 from 1.5 on; that it keeps the
order of the scores (`fidelity`) was measured on one data set only.
"""


class Name(str, Enum):
    """The questions that have a benchmark."""

    arithmetic = "arithmetic"
    auto = "auto"
    scoring = "scoring"
    scoring_large = "scoring-large"
    memory = "memory"
    growth = "growth"
    overhead = "overhead"
    actors = "actors"
    groups = "groups"
    night = "night"
    embed = "embed"
    fidelity = "fidelity"
    lake_index = "index"
    search_cells = "search-cells"
    search_small = "search-small"
    search_textures = "search-textures"
    search_noise = "search-noise"
    search_growth = "search-growth"
    alike = "alike"
    decode = "decode"
    decode_cells = "decode-cells"
    one_pool = "one-pool"
    first_page = "first-page"
    gpu = "gpu"
    gpu_peers = "gpu-peers"


def picture(name: str) -> Path:
    """Where the plot of `Name.growth` lies for a processor."""
    return DOCS / f"growth-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.png"


def _of(module: str) -> Any:
    """A module of benchmarks, imported when its turn comes: that of GPUs runs where Ray and the cells are not."""
    return import_module(f"benchmarks.{module}")


QUICK: dict[Name, Callable[[], list[Record]]] = {
    Name.arithmetic: lambda: _of("arithmetic").arithmetic(),
    Name.auto: lambda: _of("arithmetic").automatic(((32, 512, 384), (60, 256, 1152)), repeats=9),
    Name.scoring: lambda: _of("scoring").scoring(32, 512, 384, precisions=BOTH, repeats=5),
    Name.scoring_large: lambda: _of("scoring").scoring(60, 256, 768, precisions=BOTH, repeats=5, name="scoring-large"),
    Name.memory: lambda: _of("memory").memory(_of("memory").QUICK),
    Name.growth: lambda: _of("growth").growth((250, 500, 1000), repeats=3),
    Name.overhead: lambda: _of("stage").overhead(100, 256, 384, repeats={"fp32": 3, "int8": 3}),
    Name.actors: lambda: _of("stage").actors(100, 256, 384, precision="fp32", repeats=3),
    Name.groups: lambda: _of("many_groups").small_groups(100, actors=2, repeats=3),
    Name.night: lambda: _of("many_groups").night(60, 20, repeats=1),
    Name.embed: lambda: _of("embedding").embedding(192, repeats=1),
    Name.fidelity: lambda: _of("fidelity").fidelity(72, 8, (20, 40)),
    Name.alike: lambda: _of("alike").alike((224,), 8),
    Name.decode: lambda: _of("decoding").decoding((1.3, 12), 448, repeats=3),
    Name.decode_cells: lambda: _of("decoded_cells").decoded_cells(12, 4, 224),
    Name.lake_index: lambda: _of("index").index(200_000, 20, 2_000),
    Name.one_pool: lambda: _of("one_pool").one_pool(96, repeats=1),
    Name.first_page: lambda: _of("first_page").first_page(24, repeats=1),
    Name.gpu: lambda: _of("gpu").gpu(_of("gpu").QUICK),
    Name.gpu_peers: lambda: _of("gpu").peers(8, 256, 384),
}
FULL: dict[Name, Callable[[], list[Record]]] = {
    Name.arithmetic: lambda: _of("arithmetic").arithmetic(),
    Name.auto: lambda: _of("arithmetic").automatic(((32, 1024, 384), (200, 256, 1152)), repeats=5),
    Name.scoring: lambda: _of("scoring").scoring(32, 1024, 384, precisions=("fp32", "bf16", "int8"), repeats=9),
    Name.scoring_large: lambda: _of("scoring").scoring(200, 256, 768, precisions=BOTH, repeats=5, name="scoring-large"),
    Name.memory: lambda: _of("memory").memory(_of("memory").FULL),
    Name.growth: lambda: _of("growth").growth((500, 1000, 2000), repeats=5, plot=picture(processor())),
    Name.overhead: lambda: _of("stage").overhead(200, 1024, 384, repeats={"fp32": 3, "int8": 7}),
    Name.actors: lambda: _of("stage").actors(200, 1024, 768, precision="fp32", repeats=2),
    Name.groups: lambda: _of("many_groups").small_groups(300, actors=2, repeats=5),
    Name.night: lambda: _of("many_groups").night(300, 40, repeats=2),
    Name.embed: lambda: _of("embedding").embedding(400, repeats=1),
    Name.fidelity: lambda: _of("fidelity").fidelity(270, 30, (50, 100, 200)),
    Name.alike: lambda: _of("alike").alike((224, 448), 10),
    Name.decode: lambda: _of("decoding").decoding(tuple(_of("decoding").SIZES), 448, repeats=7),
    Name.decode_cells: lambda: _of("decoded_cells").decoded_cells(180, 20, 224),
    Name.lake_index: lambda: _of("index").index(5_000_000, 50, 10_000),
    Name.one_pool: lambda: _of("one_pool").one_pool(400, repeats=3),
    Name.first_page: lambda: _of("first_page").first_page(24, repeats=5),
    Name.gpu: lambda: _of("gpu").gpu(_of("gpu").FULL),
    Name.gpu_peers: lambda: _of("gpu").peers(16, 1024, 1152),
}

#: Of bound and refine: what is searched, by its number of images; and that number in quick sizes and in full ones.
SEARCHES: dict[Name, tuple[Callable[[int], list[Record]], int, int]] = {
    Name.search_cells: (lambda images: _of("searching").of_cells("search-cells", images, 448, repeats=3), 20, 200),
    Name.search_small: (lambda images: _of("searching").of_cells("search-small", images, 224, repeats=3), 60, 200),
    Name.search_textures: (
        lambda images: _of("searching").of_textures("search-textures", images, 448, repeats=3),
        12,
        60,
    ),
    Name.search_growth: (lambda images: _of("searching").of_sizes("search-growth", images, 224, repeats=3), 80, 2000),
    Name.search_noise: (lambda images: _of("searching").of_noise("search-noise", images, 256, repeats=3), 60, 200),
}


def main(
    names: Annotated[list[Name] | None, typer.Argument(help="Which benchmarks to run; default: all.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The sizes of the README instead of quick ones.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all CPUs.")] = None,
    output: Annotated[Path, typer.Option(help="Where the records go, with those of others.")] = Path("benchmarks.json"),
    images: Annotated[
        int | None, typer.Option(min=10, help="Images of a search, instead of the number that goes with the sizes.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="A page: replace its tables of this machine by those of OUTPUT.")
    ] = None,
    only_write: Annotated[bool, typer.Option("--only-write", help="Measure nothing before.")] = False,
    of: Annotated[str, typer.Option(help="Whose tables are written; default: this machine.")] = "",
) -> None:
    """Measure, print tables, and keep the records as JSON; with --write also as a page of docs/."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    console = Console(width=None if os.isatty(1) else 150)
    console.print(f"{machine()}, {torch.get_num_threads()} threads", highlight=False)
    here, began = [name for name in Name if not name.value.startswith("gpu") or torch.cuda.is_available()], monotonic()
    for name in [] if only_write else names or here:
        if name in SEARCHES:
            search, few, many = SEARCHES[name]
            records = search(images or (many if full else few))
        else:
            records = (FULL if full else QUICK)[name]()
        show(records, console)
        save(records, output, Origin.here())
    if not (names or only_write):
        records = [whole_run((monotonic() - began) / 60, full=full)]
        show(records, console)
        save(records, output, Origin.here())
    console.print(f"records: {output}", highlight=False)
    if write is not None:
        whose = of or machine()
        write_page(write, INTRODUCTION, whose, page_tables(output, whose))
        console.print(f"page: {write}", highlight=False)


def whole_run(minutes: float, *, full: bool) -> Record:
    """How long all benchmarks took, in quick sizes against the time that is told."""
    case = f"every benchmark, {'full' if full else 'quick'} sizes, {torch.get_num_threads()} threads"
    target = None if full else f"<= {MINUTES}"
    return Record(
        benchmark="whole-run", case=case, precision="-", metric="time", value=minutes, unit="min", target=target
    )


def page_tables(output: Path, of: str) -> dict[str, str]:
    """A table for each benchmark of the machine named ``of`` in ``output``, by its name."""
    records, origins = load(output, of)
    found = {}
    for name in dict.fromkeys(record.benchmark for record in records):
        own = [at for at, record in enumerate(records) if record.benchmark == name]
        body = markdown([records[at] for at in own])
        if name == Name.growth.value and (plot := picture(processor())).exists():
            body += f"\n\n![Time per image against the size of the group]({plot.name})"
        found[name] = with_origins((origins[at] for at in own), body)
    return found


if __name__ == "__main__":
    typer.run(main)
